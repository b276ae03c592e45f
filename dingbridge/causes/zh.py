"""Causes and remedies in Chinese."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from dingbridge.causes.explanation import Explanation

TEXTS: Mapping[str, Explanation] = MappingProxyType(
    {
        # -- AnythingLLM
        "backend.key": Explanation(
            "AnythingLLM 不接受 API 密钥。",
            "在 AnythingLLM 的“设置 → 工具 → 开发者 API”里新建密钥，写进 [anythingllm] api_key_file 指的文件后"
            " dingbridge reload（用 systemd 凭据的要重启）。",
        ),
        "backend.address": Explanation(
            "[anythingllm] base_url 指的地址答复的不是 AnythingLLM 的接口，多半是网页、跳转或者 404。",
            "核对 base_url 的协议、主机和端口，确认中间没有登录页或维护页，再运行 dingbridge check。",
        ),
        "backend.workspace": Explanation(
            "路由里写的工作区在 AnythingLLM 里不存在，或者有几个同名的。",
            "运行 dingbridge check 看现有的工作区，"
            "把 [[route]] 的 workspace 或 deep_workspace 改成网址里 /workspace/ 后面的那一段。",
        ),
        "backend.mode": Explanation(
            "这个版本的 AnythingLLM 不认识 [anythingllm] mode 的取值。",
            "把 mode 改成 query 或 chat，或者升级 AnythingLLM。",
        ),
        "backend.model": Explanation(
            "AnythingLLM 背后的大模型或向量模型拒绝了请求，多半是密钥失效、欠费或者模型名不对。",
            "在 AnythingLLM 的设置里检查大模型和向量模型的密钥与名称，并在它的网页里直接问一句试试。",
        ),
        "backend.model_down": Explanation(
            "AnythingLLM 正常，但它背后的大模型或向量模型没有应答，或者出错了。",
            "检查模型服务（例如 Ollama、vLLM 或云端接口）是否在运行，AnythingLLM 所在的机器能不能连到它。",
        ),
        "backend.down": Explanation(
            "连不上 AnythingLLM。",
            "确认它正在运行，端口与 [anythingllm] base_url 一致，中间的防火墙放行，再运行 dingbridge check。",
        ),
        "backend.slow": Explanation(
            "AnythingLLM 在时限内没有答完，多半是模型太慢或者卡住了。",
            "看模型服务的负载和显卡；如果一直这么慢，就调大 [anythingllm] 的 first_token_timeout_s、idle_timeout_s 和"
            " total_timeout_s，或者调小 [limits] workers。",
        ),
        "backend.overloaded": Explanation(
            "AnythingLLM 或者它背后的模型忙不过来，或者触发了限流。",
            "先确认它在运行（它停机时反向代理也答复 503），再调小 [limits] workers，或者给模型扩容、提高限额。",
        ),
        "backend.cut": Explanation(
            "回答还没传完，AnythingLLM 的连接就断了。",
            "看 AnythingLLM 的日志里那一刻有没有重启或崩溃，再看中间的反向代理有没有空闲超时。",
        ),
        "backend.unreadable": Explanation(
            "AnythingLLM 答复的内容无法识别。",
            "确认 [anythingllm] base_url 直接指向 AnythingLLM，并看它的版本和日志；中间的代理可能改写了答复。",
        ),
        "backend.empty": Explanation(
            "模型给出的回答是空的。",
            "在 AnythingLLM 的网页里用同一个工作区问同样的问题；还是空的，就换模型或检查模型的输出设置。",
        ),
        "backend.failed": Explanation(
            "AnythingLLM 内部出错。",
            "看 AnythingLLM 自己的日志里那一刻的报错。",
        ),
        "backend.refused": Explanation(
            "AnythingLLM 或它前面的服务器不接受这个请求。",
            "按状态码去看 AnythingLLM 和反向代理的日志；地址是 https 时，可能需要 [anythingllm] client_cert。",
        ),
        "backend.blocked": Explanation(
            "AnythingLLM 前面的反向代理或网关要求登录，或者不让这台机器访问。",
            "在反向代理上放行这台机器对 /api/v1 的访问，不要再加一层登录。",
        ),
        "backend.too_large": Explanation(
            "AnythingLLM 前面的反向代理不允许这么大的请求。",
            "在反向代理上调大请求体上限（nginx 是 client_max_body_size）。",
        ),
        "question.empty": Explanation(
            "这个问题去掉空白和不可见字符后什么也不剩，没有送去查询。",
            "不用处理，请提问的人用文字重新发一次。",
        ),
        # -- files
        "media.too_large": Explanation(
            "有人发来的图片超过 10 MB，或者文件超过 20 MB。",
            "不用处理，已经把上限告诉对方。",
        ),
        "media.kind": Explanation(
            "有人发来的文件 AnythingLLM 读不了，或者内容和扩展名不符。",
            "不用处理，已经告诉对方哪些文件可以读。",
        ),
        "media.expired": Explanation(
            "钉钉不再提供这个文件，下载码只在一段时间内有效。",
            "请对方重新发送；如果刚发的文件也过期，用 dingbridge status 看问题排队多久。",
        ),
        "media.foreign": Explanation(
            "钉钉给出的文件地址不在钉钉或其存储的域名下，或者又跳转到别处。",
            "核对 [dingtalk] api_base 以及到钉钉之间的设备；这个地址没有被访问。",
        ),
        "media.busy": Explanation(
            "同时要看的文件太多，一分钟内没有空出内存。",
            "会自动重试；如果经常这样，看看 AnythingLLM 为什么答得慢。",
        ),
        "media.unavailable": Explanation(
            "钉钉的文件存储没有把文件交出来。",
            "在防火墙放行到 *.aliyuncs.com 的 80 和 443 端口，或者在 [dingtalk] proxy 写上代理。",
        ),
        "backend.collector": Explanation(
            "AnythingLLM 没有读随问题发来的文件，它的 collector 没有运行，或者读不了这个文件。",
            "看看 AnythingLLM 的 collector 进程（容器里的 8888 端口）是否在运行，它的日志说了什么。",
        ),
        # -- the network
        "proxy.auth": Explanation(
            "代理不接受用户名或密码（407）。",
            "核对 [dingtalk] 或 [anythingllm] 里 proxy 的用户名和密码，特殊字符要写成 %XX，再运行 dingbridge check。",
        ),
        "proxy.down": Explanation(
            "连不上代理。",
            "确认代理在运行，proxy 的主机和端口没有写错；不该走代理的目标写进 no_proxy。",
        ),
        "proxy.refused": Explanation(
            "代理不让连接通过，或者它自己连不上目标。",
            "在代理上放行目标域名的 443 端口和 CONNECT 方法，或者把这台主机写进 no_proxy。",
        ),
        "tls.untrusted": Explanation(
            "对方的证书不受信任，多半是内部 CA，或者有设备在解密 TLS 流量。",
            "把签发它的根证书（PEM）写进 [dingtalk] 或 [anythingllm] 的 ca_file，再运行 dingbridge check。",
        ),
        "tls.expired": Explanation(
            "对方的证书或签发它的 CA 证书已经过期（或者还没有生效）。",
            "更换过期的证书，自签 CA 过期时 ca_file 也要换；如果证书没问题，就检查这台机器的时钟。",
        ),
        "tls.name": Explanation(
            "对方的证书不是发给这个主机名的。",
            "把地址改成证书里的主机名，或者给服务器换一张包含这个主机名的证书。",
        ),
        "tls.client_cert": Explanation(
            "对方要求客户端证书，而我们没有提供，或者它不接受。",
            "核对 client_cert 和 client_key：是否写了、是否过期、是不是对方认可的 CA 签发的。",
        ),
        "tls.failed": Explanation(
            "TLS 连接建立失败，对方可能根本没有开启 TLS。",
            "检查地址该用 http 还是 https、端口对不对，对方要双向 TLS 时填写 client_cert。",
        ),
        "dns": Explanation(
            "域名解析失败。",
            "在这台机器上用 getent hosts 加主机名试一下，检查 /etc/resolv.conf，以及配置里的主机名有没有写错。",
        ),
        "network.refused": Explanation(
            "连不上钉钉的服务器。",
            "检查路由和防火墙，出方向要放行 *.dingtalk.com 的 443 端口，再运行 dingbridge check。",
        ),
        "network.timeout": Explanation(
            "钉钉的服务器在时限内没有应答。",
            "检查出口网络的丢包和延迟，以及防火墙是不是悄悄丢弃了到 *.dingtalk.com 的连接。",
        ),
        "network.cut": Explanation(
            "与钉钉的连接中途断开了。",
            "偶尔一次不用管；经常发生时，检查防火墙、代理的连接时限和出口网络。",
        ),
        "network.intercepted": Explanation(
            "答复的不是钉钉，而是中间的设备，例如上网认证页、防火墙的拦截页或代理。",
            "在这台机器上用 curl 访问 https://api.dingtalk.com 看是谁在答复，并放行 *.dingtalk.com。",
        ),
        # -- the chat
        "webhook.expired": Explanation(
            "这条消息的会话回复地址（session webhook）已经过期，大约 90 分钟有效。",
            "确认已开通 qyapi_robot_sendmsg 权限，过期后会自动改用 OpenAPI 发送；再看回答为什么等了这么久。",
        ),
        "webhook.none": Explanation(
            "没有可用的会话回复地址（session webhook），只能用 OpenAPI 发送。",
            "确认已开通 qyapi_robot_sendmsg 权限；消息里的地址被拒绝时，日志里有 security.foreign_webhook。",
        ),
        "webhook.foreign": Explanation(
            "消息里带的回复地址不是钉钉的，出于安全没有使用。",
            "用的是专属钉钉就把它的地址写进 [dingtalk] oapi_base，否则请查是谁伪造了这条消息。",
        ),
        "chat.paced": Explanation(
            "发送太快，被钉钉限流，或者为了不被限流先等一等。",
            "不用处理，稍后会自动发送；经常出现时，看是谁在这个会话里刷屏，或者调小 [limits] per_user_per_minute。",
        ),
        "chat.quota": Explanation(
            "本组织当月的钉钉调用额度已经用完。",
            "在开发者后台的“资源管理”里查看用量并购买增购包，或者等下个月恢复。",
        ),
        "chat.permission": Explanation(
            "应用没有主动发消息的权限 qyapi_robot_sendmsg。",
            "在开发者后台的“权限管理”里搜索 qyapi_robot_sendmsg ，点“立即开通”。",
        ),
        "chat.ip_list": Explanation(
            "这台机器的出口 IP 不在应用的“服务器出口IP白名单”里。",
            "在开发者后台应用的安全设置里，把出口 IP 加进“服务器出口IP白名单”，或者把白名单清空。",
        ),
        "chat.person": Explanation(
            "钉钉不认识提问者的员工编号，或者不允许机器人给他发单聊消息。",
            "确认他还在职，并且在应用的“可见范围”里，再请他主动给机器人发一条消息。",
        ),
        "chat.no_staff_id": Explanation(
            "消息里没有提问者的员工编号，回复地址失效后就没有办法找到他。",
            "在“版本管理与发布”里发布一个版本；外部组织的人没有员工编号，只能请他再问一次。",
        ),
        "chat.gone": Explanation(
            "会话已经不在了：群解散了，机器人被移出群，或者机器人被停用。",
            "还需要的话，在群设置里重新添加机器人，或者在开发者后台重新启用它。",
        ),
        "chat.muted": Explanation(
            "机器人在这个群里被禁言。",
            "请群主或群管理员解除禁言，或者把机器人加进允许发言的名单。",
        ),
        "chat.robot": Explanation(
            "钉钉说机器人编码与这个应用不符。",
            "核对 [dingtalk] client_id 是不是这个机器人的应用，应用里是否添加了机器人能力，并且已经发布。",
        ),
        "chat.unsafe": Explanation(
            "钉钉的内容检查没有放行这段文字。",
            "请提问者换个问法；总是出现时，检查文档里有没有会触发检查的词语或链接。",
        ),
        "chat.too_long": Explanation(
            "钉钉嫌消息太长，拆短以后还是不收。",
            "看中间的代理是不是限制了请求大小；不是的话，请带上编号向 dingbridge 报告。",
        ),
        "chat.busy": Explanation(
            "钉钉暂时忙，没有收下这条消息。",
            "不用处理，稍后会自动再发；持续很久时，看钉钉的服务状态。",
        ),
        "chat.refused": Explanation(
            "钉钉拒绝了这条消息。",
            "用错误码在钉钉开放平台的错误码页面查原因，报障时带上 requestid。",
        ),
        "chat.unknown_outcome": Explanation(
            "消息已经发出，但钉钉没有确认收到，不知道有没有送达。",
            "到会话里看一眼有没有这条回答；要不要重发由 [reply] uncertain 决定，经常发生时检查到钉钉的网络。",
        ),
        "card.template": Explanation(
            "钉钉找不到卡片模板，或者模板还没有发布；这段时间回答改用普通消息。",
            "在“卡片平台”里把模板关联到这个应用并发布，再把模板 ID 填进 [dingtalk] card_template_id。",
        ),
        "card.permission": Explanation(
            "应用没有写卡片的权限 Card.Instance.Write 或 Card.Streaming.Write。",
            "在开发者后台的“权限管理”里搜索这两个权限并开通；AIInteraction.Card.Write 是另一个权限。",
        ),
        "card.key": Explanation(
            "卡片模板里没有这个名字的流式变量，或者没有流式更新的权限。",
            "核对 [dingtalk] card_content_key：它要和模板里打开了“流式组件”的 markdown 变量同名。",
        ),
        "card.too_large": Explanation(
            "回答太长，一张卡片放不下。",
            "不用处理，其余内容会用消息发送；想让回答短一些，请调整工作区的提示词。",
        ),
        "card.undelivered": Explanation(
            "卡片已经创建，但是钉钉没有把它投放到会话里。",
            "回答会用消息发送；一直这样时，确认机器人在群里，并且模板仍然有效。",
        ),
        "card.gone": Explanation(
            "钉钉不认识要更新的这张卡片。",
            "回答会用消息发送；经常出现时，检查是不是两个应用共用了一个存储。",
        ),
        "card.busy": Explanation(
            "钉钉的卡片服务出错，卡片停用半小时。",
            "不用处理，这段时间回答改用普通消息；持续很久时，看钉钉的服务状态。",
        ),
        "token.refused": Explanation(
            "钉钉不给 access token，或者不认刚给的 token，多半是凭据不对。",
            "核对 [dingtalk] client_id 和 client_secret 是同一个应用的，没有多余的空格，再运行 dingbridge check。",
        ),
        "token.unavailable": Explanation(
            "取 access token 时钉钉没有给出正常的答复。",
            "不用处理，稍后会自动再取；持续很久时，检查到 api.dingtalk.com 的网络和钉钉的服务状态。",
        ),
        # -- the Stream connection
        "link.rejected": Explanation(
            "钉钉拒绝了应用的凭据，Stream 连接建立不起来。",
            "在开发者后台核对 Client ID、Client Secret，消息接收模式是 Stream，版本已发布，出口 IP 在白名单里。",
        ),
        "link.lost": Explanation(
            "与钉钉的 Stream 连接断开了。",
            "会自动重连；经常断开时，检查防火墙和代理对长连接的时限，以及是不是有另一个进程用着同一个 Client ID。",
        ),
        "link.silent": Explanation(
            "Stream 连接没有回应心跳，网络把数据悄悄丢掉了。",
            "会自动重连；经常发生时，检查防火墙或 NAT 的会话超时。",
        ),
        "link.unavailable": Explanation(
            "钉钉的网关暂时不可用。",
            "会自动重试；持续很久时，看钉钉的服务状态。",
        ),
        "link.blocked": Explanation(
            "打开 Stream 连接的请求被拒绝访问（403）。",
            "检查代理是否放行 api.dingtalk.com，以及这台机器的出口 IP 是否在应用的“服务器出口IP白名单”里。",
        ),
        "link.handshake": Explanation(
            "WebSocket 握手没有成功，多半是代理或防火墙不放行 WebSocket。",
            "放行到 wss-open-connection.dingtalk.com 的 443 端口，并允许协议升级（Upgrade）。",
        ),
        "link.foreign": Explanation(
            "打开连接的答复里给出的网关不是钉钉的，出于安全没有连接。",
            "检查 [dingtalk] api_base 有没有写错，中间有没有设备改写了答复。",
        ),
        # -- the store
        "store.full": Explanation(
            "收件箱所在的磁盘满了。",
            "腾出空间就会自动继续，已经收下的问题不会丢；看一下 df -h，以及 [store] url 在哪块盘上。",
        ),
        "store.readonly": Explanation(
            "收件箱的文件、目录或者数据库打不开，或者不可写。",
            "文件：检查目录在不在、运行 dingbridge 的用户能不能写、文件系统是不是变成了只读；"
            "PostgreSQL：给这个角色权限，并在 [store] url 里写能写的那台。",
        ),
        "store.corrupt": Explanation(
            "收件箱已经损坏，或者不是 dingbridge 的收件箱，或者表的版本不对。",
            "按错误里的话处理：从备份恢复，或者在 [store] url 里换一个重新开始。",
        ),
        "store.disk": Explanation(
            "收件箱所在的磁盘报告读写错误。",
            "用 dmesg 看内核日志，尽快备份并更换磁盘。",
        ),
        "store.newer": Explanation(
            "收件箱是更新版本的 dingbridge 建立的。",
            "装回那个版本，或者在 [store] url 里换一个收件箱。",
        ),
        "store.locked": Explanation(
            "另一个 dingbridge 正在使用这个收件箱，或者正在复制、检查它。",
            "用 systemctl status dingbridge 和 ps 找到它，停掉或者等它结束；"
            "一个 SQLite 收件箱只能由一个进程使用，多台机器请用 PostgreSQL。",
        ),
        "store.unreachable": Explanation(
            "连不上 PostgreSQL，或者它没有应答。",
            "确认它在运行，[store] url 的主机和端口没有写错，防火墙放行，连接数没有用完；"
            "恢复以后会自动继续，已经收下的问题不会丢。",
        ),
        "store.password": Explanation(
            "PostgreSQL 不接受这个角色的登录：密码不对，或者 pg_hba.conf 不允许。",
            "核对 [store] password 和 url 里的角色名，再看服务器的 pg_hba.conf，然后运行 dingbridge check。",
        ),
        "store.unavailable": Explanation(
            "收件箱没有接受写入。",
            "看错误里数据库的原话和磁盘的状态，必要时重启服务。",
        ),
        # -- routes and handlers
        "handler.raised": Explanation(
            "自己写的 handler 抛出了异常。",
            "在日志里按编号找 handler.failed，里面有完整的异常堆栈，然后修改 handler。",
        ),
        "handler.slow": Explanation(
            "自己写的 handler 超过了时限。",
            "给 handler 里的外部调用加上超时；确实需要更久时，调大 [anythingllm] total_timeout_s。",
        ),
        "handler.bad_result": Explanation(
            "自己写的 handler 返回了不认识的内容。",
            "让它返回带文字的 Answer、字符串或者 None。",
        ),
        "route.none": Explanation(
            "没有一条路由对提问者或这个群开放。",
            "请他发送 /whoami，把得到的编号写进 [[route]] 的 users 或 conversations。",
        ),
        "answer.refused": Explanation(
            "这条路由的文档里没有找到答案。",
            "确认相关文档已经上传到这个工作区，必要时在 AnythingLLM 里调低工作区的相似度阈值。",
        ),
        # -- dingbridge itself
        "deadline.passed": Explanation(
            "问题等得太久，超过了 [limits] answer_deadline_min。",
            "看它前面几步为什么失败（多半是 AnythingLLM 停机或太慢），需要等更久就调大 answer_deadline_min。",
        ),
        "crash.thrice": Explanation(
            "处理这条消息时进程死了三次，已经不再尝试。",
            "用 journalctl -u dingbridge 看每次是怎么退出的（内存不足、handler 崩溃、被强制结束），再请他重新提问。",
        ),
        "bug": Explanation(
            "dingbridge 自己出错了。",
            "在日志里按编号找 message.failed，把异常堆栈和版本号报告给开发者。",
        ),
    }
)
