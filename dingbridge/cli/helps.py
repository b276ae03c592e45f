"""The help of every verb and option, in both languages."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

_ZH: Mapping[str, str] = MappingProxyType(
    {
        "main": "让钉钉里的提问由 AnythingLLM 按公司文档回答；只用向外的 Stream 连接。",
        "config": "默认依次是 $DINGBRIDGE_CONFIG、./dingbridge.toml、/etc/dingbridge/dingbridge.toml。",
        "json": "输出 JSON。",
        "as": "以这个员工编号（userid）的身份。",
        "in": "在这个群里（会话编号）。",
        "run": "保持连接并回答，直到 SIGTERM 或 SIGINT；SIGHUP 重新载入配置。",
        "check": "逐段试一遍，指出哪里有问题、怎么处理。",
        "ask": "不经过钉钉提一个问题，打印答案和来源。",
        "route": "说明一个问题会走哪条路由，逐条给出理由。",
        "route.expect": "不是这条路由时退出码为 1；空字符串表示应当没有路由。",
        "demo": "不用钉钉账号看真的守护进程怎么工作：两端都是本机的替身。\n\n"
        "打开一个带聊天、线路和导览的网页；从管道输入问题时，逐行在标准输出里回答。",
        "demo.config": "用你自己的路由和 handler。",
        "demo.port": "端口，0 表示任选；默认网页 8787，--gateway-only 为 8786（网页再加一），被占用时用下一个。",
        "demo.no_browser": "只提供网页，不打开浏览器。",
        "demo.cards": "一开始就用 AI 卡片作答；网页里也能切换。",
        "demo.chat": "在这个终端里聊，不开网页。",
        "demo.anythingllm": "问这个真的 AnythingLLM，不用替身。",
        "demo.api_key_file": "它的 API 密钥所在的文件。",
        "demo.verbose": "显示守护进程的日志。",
        "demo.gateway_only": "只有钉钉的替身和它的聊天页面，供开发别的机器人。",
        "demo.record": "把往来记成 JSON 行，密钥已遮住。",
        "status": "守护进程现在怎样：连接、队列、会话、AnythingLLM、最近的失败。",
        "status.watch": "每秒刷新，Ctrl-C 结束。",
        "status.set_used": "按钉钉控制台更正本月已用的额度，如 --set-used api=1234 --set-used webhook_stream=567。",
        "status.set_used_bad": "{written}：应写成 池=整数，每个池只写一次；池是 {pools}。",
        "trace": "一条消息的全过程，以及哪里出了错、怎么处理；给聊天里的编号或钉钉的 msgId。",
        "inbox": "存着的消息：查看、放回队列、移除。",
        "inbox.list": "列出消息，每条一行。",
        "inbox.which": "open：没结束的；failed：没答好的；all：全部。",
        "inbox.limit": "最多列出几条。",
        "inbox.show": "一条消息的全部字段；原文要加 --text。",
        "inbox.text": "连问题和答案的原文一起显示。",
        "inbox.retry": "把失败的问题放回队列再答一次。",
        "inbox.drop": "移除一条消息，并告诉提问者。",
        "inbox.quiet": "不告诉提问者。",
        "reload": "重新读取配置；有错时继续用原来的，并逐条指出。",
        "support": "打包故障资料：版本、配置（不含密钥）、状态、失败消息的过程、日志、检查结果。",
        "support.output": "写到哪里；默认在当前文件夹里。",
        "store": "数据库本身：升级、检查、复制。",
        "store.migrate": "把配置里的数据库升级到这个版本；要先停下守护进程。",
        "store.check": "检查数据库是否完好，逐条指出问题和处理办法；不用停守护进程。",
        "store.copy": "把 SQLite 文件整个复制到配置里的 PostgreSQL，逐行核对；中断后再次执行就接着做。"
        "要先停下守护进程。",
        "store.from": "守护进程一直用着的 SQLite 文件。",
    }
)

_EN: Mapping[str, str] = MappingProxyType(
    {
        "main": "Answers from AnythingLLM in DingTalk chats, over an outbound Stream connection.",
        "config": "Default: $DINGBRIDGE_CONFIG, ./dingbridge.toml, /etc/dingbridge/dingbridge.toml.",
        "json": "Print JSON.",
        "as": "As this user id (staff id).",
        "in": "In this group (its conversation id).",
        "run": "Keep the connection up and answer; until SIGTERM or SIGINT. SIGHUP reloads the configuration.",
        "check": "Try every hop and name what is wrong, with its remedy.",
        "ask": "Ask a question without DingTalk; prints the answer and its sources.",
        "route": "Explain which route a question takes, rule by rule.",
        "route.expect": "Exit with 1 when it is another one; an empty text means none.",
        "demo": "See a real daemon at work, without a DingTalk account: both servers are stand-ins on this machine.\n\n"
        "Opens a page with chats, the wire and a tour. With questions piped in it answers each line on stdout.",
        "demo.config": "Run your own routes and handlers in it.",
        "demo.port": "0 takes any; default: 8787 for the page, 8786 with --gateway-only (its page: one more), "
        "the next one if it is taken.",
        "demo.no_browser": "Serve the page, open nothing.",
        "demo.cards": "Answers are AI cards from the start; the page can switch that, too.",
        "demo.chat": "Chat in this terminal instead of a page.",
        "demo.anythingllm": "Ask this AnythingLLM instead of the stand-in.",
        "demo.api_key_file": "The file with its API key.",
        "demo.verbose": "Show the daemon's log.",
        "demo.gateway_only": "Only DingTalk's stand-in and its chat page, for a bot of your own.",
        "demo.record": "Traffic as JSON lines, secrets masked.",
        "status": "How the daemon is: link, queue, contexts, AnythingLLM, the last failures.",
        "status.watch": "Anew each second, until Ctrl-C.",
        "status.set_used": "Correct what this month has used by DingTalk's console, like --set-used api=1234 "
        "--set-used webhook_stream=567.",
        "status.set_used_bad": "{written}: write POOL=N, a whole number, each pool once; pools: {pools}.",
        "trace": "The whole way of one message, what went wrong and what to do; by a chat's code or DingTalk's msgId.",
        "inbox": "The messages that are kept: look, retry, drop.",
        "inbox.list": "One line for each message.",
        "inbox.which": "open: unfinished; failed: not answered well; all.",
        "inbox.limit": "At most so many.",
        "inbox.show": "All columns of one message; its texts only with --text.",
        "inbox.text": "Show question and answer, too.",
        "inbox.retry": "Put a failed question back into the queue.",
        "inbox.drop": "Drop a message, and tell its asker.",
        "inbox.quiet": "Do not tell the asker.",
        "reload": "Read the configuration anew; where it has faults, the old one stays and they are named.",
        "support": "Pack what explains a fault: versions, configuration without secrets, status, traces, log, check.",
        "support.output": "Where to; default: into this folder.",
        "store": "The tables themselves: migrate, check, copy.",
        "store.migrate": "Bring the configuration's store to this version; stop the daemons first.",
        "store.check": "Is the store whole? Names what is wrong, with its remedy; daemons may run.",
        "store.copy": "Copy all of an SQLite file into the configuration's PostgreSQL and compare each row; called "
        "again it goes on where it was. Stop the daemons first.",
        "store.from": "The SQLite file that a daemon has used.",
    }
)

HELPS: Mapping[str, Mapping[str, str]] = MappingProxyType({"zh-CN": _ZH, "en": _EN})
