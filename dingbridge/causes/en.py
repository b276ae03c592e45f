"""Causes and remedies in English."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from dingbridge.causes.explanation import Explanation

TEXTS: Mapping[str, Explanation] = MappingProxyType(
    {
        # -- AnythingLLM
        "backend.key": Explanation(
            "AnythingLLM does not accept the API key.",
            "Create one in AnythingLLM (Settings, Tools, Developer API), put it into the file that [anythingllm] "
            "api_key_file names, and run dingbridge reload (a systemd credential needs a restart).",
        ),
        "backend.address": Explanation(
            "What answers at [anythingllm] base_url is not AnythingLLM's API: a web page, a redirect or a 404.",
            "Compare scheme, host and port of base_url, look for a login or maintenance page in between, then run "
            "dingbridge check.",
        ),
        "backend.workspace": Explanation(
            "AnythingLLM has no workspace of the name in the route, or several.",
            "Run dingbridge check to see which there are, and write into [[route]] workspace or deep_workspace "
            "what stands behind /workspace/ in the browser's address.",
        ),
        "backend.mode": Explanation(
            "This version of AnythingLLM does not know the value of [anythingllm] mode.",
            "Set mode to query or chat, or upgrade AnythingLLM.",
        ),
        "backend.model": Explanation(
            "The model or the embedder behind AnythingLLM refuses: its key, its bill or its name is wrong.",
            "Check key and name of the LLM and of the embedder in AnythingLLM's settings, and ask something in its own "
            "web page.",
        ),
        "backend.model_down": Explanation(
            "AnythingLLM works, but the model or the embedder behind it does not answer or fails.",
            "Check that the model server (Ollama, vLLM, a cloud API) runs and that AnythingLLM's host reaches it.",
        ),
        "backend.down": Explanation(
            "AnythingLLM cannot be reached.",
            "Check that it runs, that its port is the one in [anythingllm] base_url and that no firewall is in "
            "between, then run dingbridge check.",
        ),
        "backend.slow": Explanation(
            "AnythingLLM did not finish within the time limits: the model is slow or stuck.",
            "Look at the load of the model server; if that is its normal pace, raise first_token_timeout_s, "
            "idle_timeout_s and total_timeout_s in [anythingllm], or lower [limits] workers.",
        ),
        "backend.overloaded": Explanation(
            "AnythingLLM or the model behind it is overloaded or limits the rate.",
            "Check that it runs (a reverse proxy says 503 where it does not), then lower [limits] workers, or give the "
            "model more capacity or a higher quota.",
        ),
        "backend.cut": Explanation(
            "AnythingLLM's connection ended before the answer was whole.",
            "Look for a restart or a crash in AnythingLLM's log at that moment, then for an idle timeout of a reverse "
            "proxy.",
        ),
        "backend.unreadable": Explanation(
            "AnythingLLM's answer cannot be read.",
            "Make sure that [anythingllm] base_url leads to AnythingLLM itself, and look at its version and log; a "
            "proxy may rewrite answers.",
        ),
        "backend.empty": Explanation(
            "The model's answer is empty.",
            "Ask the same in the same workspace of AnythingLLM's web page; if it is empty there too, take another "
            "model or check its output settings.",
        ),
        "backend.failed": Explanation(
            "AnythingLLM failed internally.",
            "Read what AnythingLLM's own log says at that moment.",
        ),
        "backend.refused": Explanation(
            "AnythingLLM, or a server in front of it, does not take the request.",
            "Follow the status into the logs of AnythingLLM and of the reverse proxy; an https address may want "
            "[anythingllm] client_cert.",
        ),
        "backend.blocked": Explanation(
            "A reverse proxy or gateway in front of AnythingLLM wants a login or does not let this machine in.",
            "Let this machine pass to /api/v1 there, without a login of its own.",
        ),
        "backend.too_large": Explanation(
            "A reverse proxy in front of AnythingLLM does not take requests of this size.",
            "Raise its limit for request bodies (client_max_body_size in nginx).",
        ),
        "question.empty": Explanation(
            "Without blanks and invisible characters nothing is left of the question, so nothing was asked.",
            "Nothing is to mend; ask the person to write it as text.",
        ),
        # -- files
        "media.too_large": Explanation(
            "Somebody sent a picture of more than 10 MB or a file of more than 20 MB.",
            "Nothing is to mend; the person was told the limits.",
        ),
        "media.kind": Explanation(
            "Somebody sent a file of a kind that AnythingLLM cannot read, or one that is not what its name says.",
            "Nothing is to mend; the person was told which kinds work.",
        ),
        "media.expired": Explanation(
            "DingTalk does not hand the file out any more: its code is valid for a while only.",
            "Ask the person to send it again; if new files expire too, look at how long questions wait in dingbridge "
            "status.",
        ),
        "media.foreign": Explanation(
            "The address DingTalk gave for a file is not on its own or its storage's hosts, or sends on elsewhere.",
            "Check [dingtalk] api_base and whatever stands between here and DingTalk; the address was not followed.",
        ),
        "media.busy": Explanation(
            "So many files are being asked about that no memory was left for another within a minute.",
            "It is tried again by itself; if it happens often, look at why AnythingLLM answers slowly.",
        ),
        "media.unavailable": Explanation(
            "DingTalk's file storage did not hand a file over.",
            "Allow outbound 80 and 443 to *.aliyuncs.com in the firewall, or name a proxy in [dingtalk] proxy.",
        ),
        "backend.collector": Explanation(
            "AnythingLLM did not look at a document that was sent along: its collector is down or could not read it.",
            "See whether AnythingLLM's collector process runs (port 8888 in its container) and what its log says.",
        ),
        # -- the network
        "proxy.auth": Explanation(
            "The proxy does not accept the user name or the password (407).",
            "Compare both in proxy under [dingtalk] or [anythingllm], special characters written as %XX, then run "
            "dingbridge check.",
        ),
        "proxy.down": Explanation(
            "The proxy cannot be reached.",
            "Check that it runs and that host and port in proxy are right; name what needs no proxy in no_proxy.",
        ),
        "proxy.refused": Explanation(
            "The proxy does not let the connection through, or does not reach the target itself.",
            "Allow CONNECT to the target's port 443 there, or name the host in no_proxy.",
        ),
        "tls.untrusted": Explanation(
            "The certificate is not trusted: a private CA, or something that inspects TLS.",
            "Name the issuing root certificate (PEM) in ca_file under [dingtalk] or [anythingllm], then run dingbridge "
            "check.",
        ),
        "tls.expired": Explanation(
            "The certificate, or that of the CA that issued it, has expired (or is not valid yet).",
            "Renew what has expired, in ca_file too where it is a private CA; if all are valid, check this machine's "
            "clock.",
        ),
        "tls.name": Explanation(
            "The certificate was issued for another host name.",
            "Write the name from the certificate into the address, or give the server a certificate for this name.",
        ),
        "tls.client_cert": Explanation(
            "The other side wants a client certificate and got none, or does not accept it.",
            "Check client_cert and client_key: named at all, not expired, issued by a CA that the other side accepts.",
        ),
        "tls.failed": Explanation(
            "The TLS handshake failed; perhaps the other side does not speak TLS at all.",
            "Check http or https and the port of the address, and client_cert where the other side wants one.",
        ),
        "dns": Explanation(
            "The host name cannot be resolved.",
            "Try getent hosts with the name on this machine, and check /etc/resolv.conf and the spelling in the "
            "configuration.",
        ),
        "network.refused": Explanation(
            "DingTalk's servers cannot be reached.",
            "Check route and firewall, port 443 outbound to *.dingtalk.com, then run dingbridge check.",
        ),
        "network.timeout": Explanation(
            "DingTalk's servers did not answer in time.",
            "Check packet loss and latency of the way out, and whether a firewall drops connections to *.dingtalk.com.",
        ),
        "network.cut": Explanation(
            "The connection to DingTalk broke off.",
            "Once in a while is nothing to worry about; if it happens often, check firewall, proxy timeouts and the "
            "way out.",
        ),
        "network.intercepted": Explanation(
            "Not DingTalk answered but something in between: a captive portal, a firewall's page or a proxy.",
            "Look with curl https://api.dingtalk.com on this machine who answers, and let *.dingtalk.com pass.",
        ),
        # -- the chat
        "webhook.expired": Explanation(
            "The message's session webhook has expired; it lives about 90 minutes.",
            "Grant qyapi_robot_sendmsg, so that the OpenAPI takes over, and look why the answer took so long.",
        ),
        "webhook.none": Explanation(
            "There is no session webhook to use, so only the OpenAPI is left.",
            "Grant qyapi_robot_sendmsg; where a webhook was refused, the log has security.foreign_webhook.",
        ),
        "webhook.foreign": Explanation(
            "The session webhook in the message is not DingTalk's and was not used, for safety.",
            "Where it is your private DingTalk, name it in [dingtalk] oapi_base; otherwise find out who forged it.",
        ),
        "chat.paced": Explanation(
            "Messages came too fast for DingTalk, or were held back so that they do not.",
            "Nothing is to do, they are sent later; if it happens often, see who floods this conversation, or lower "
            "[limits] per_user_per_minute.",
        ),
        "chat.quota": Explanation(
            "The organisation's monthly DingTalk allowance is spent.",
            "Look at the usage in the developer console (资源管理) and buy more, or wait for the next month.",
        ),
        "chat.permission": Explanation(
            "The app may not send messages on its own: qyapi_robot_sendmsg is missing.",
            "Search qyapi_robot_sendmsg in the developer console (权限管理) and grant it.",
        ),
        "chat.ip_list": Explanation(
            "This machine's egress address is not in the app's 服务器出口IP白名单.",
            "Add it in the app's security settings of the developer console, or empty that list.",
        ),
        "chat.person": Explanation(
            "DingTalk does not know the asker's staff id, or does not let the robot write to them.",
            "Check that the person is still there and within the app's 可见范围, and ask them to write to the robot.",
        ),
        "chat.no_staff_id": Explanation(
            "The message has no staff id of its asker, so without a session webhook nobody can be reached.",
            "Publish a version of the app (版本管理与发布); people of other organisations have none and have to ask "
            "again.",
        ),
        "chat.gone": Explanation(
            "The conversation is gone: the group is disbanded, or the robot was removed or stopped.",
            "If it is still needed, add the robot to the group again, or enable it in the developer console.",
        ),
        "chat.muted": Explanation(
            "The robot is muted in this group.",
            "Ask the group's owner to lift that, or to put the robot among those who may speak.",
        ),
        "chat.robot": Explanation(
            "DingTalk says that the robot code does not belong to this app.",
            "Check that [dingtalk] client_id is this robot's app, and that its robot capability is published.",
        ),
        "chat.unsafe": Explanation(
            "DingTalk's content check did not let the text pass.",
            "Have it asked differently; if it happens often, look for words or links in the documents that trigger it.",
        ),
        "chat.too_long": Explanation(
            "DingTalk finds the message too long, even in shorter pieces.",
            "See whether a proxy limits the size of requests; if not, report it with its code.",
        ),
        "chat.busy": Explanation(
            "DingTalk is busy and did not take the message.",
            "Nothing is to do, it is sent again later; if it lasts, look at DingTalk's service status.",
        ),
        "chat.refused": Explanation(
            "DingTalk refused the message.",
            "Look the code up in DingTalk's list of error codes, and give its support the requestid.",
        ),
        "chat.unknown_outcome": Explanation(
            "The message was sent, but DingTalk did not confirm it: it may have arrived or not.",
            "Look into the chat; [reply] uncertain decides whether it is sent again, and if it happens often, check "
            "the network to DingTalk.",
        ),
        "card.template": Explanation(
            "DingTalk does not know the card template, or it is not published; answers are plain messages meanwhile.",
            "Publish the template on the card platform (卡片平台), linked to this app, and copy its id into [dingtalk] "
            "card_template_id.",
        ),
        "card.permission": Explanation(
            "The app may not write cards: Card.Instance.Write or Card.Streaming.Write is missing.",
            "Search both in the developer console (权限管理) and grant them; AIInteraction.Card.Write is another one.",
        ),
        "card.key": Explanation(
            "The template has no streaming variable of the name that was given, or card streaming is not permitted.",
            "See [dingtalk] card_content_key: it names the markdown variable whose streaming switch (流式组件) is on.",
        ),
        "card.too_large": Explanation(
            "The answer is longer than a card takes.",
            "Nothing is to do, the rest comes as messages; shorter answers are a matter of the workspace's prompt.",
        ),
        "card.undelivered": Explanation(
            "The card was made, but DingTalk did not show it in the chat.",
            "The answer comes as a message; if it stays so, see that the robot is in the group.",
        ),
        "card.gone": Explanation(
            "DingTalk does not know the card that was to be updated.",
            "The answer comes as a message; if it happens often, see whether two apps share one store.",
        ),
        "card.busy": Explanation(
            "DingTalk's card service fails, so cards rest for half an hour.",
            "Nothing is to do, answers are plain messages meanwhile; if it lasts, look at DingTalk's service status.",
        ),
        "token.refused": Explanation(
            "DingTalk gives no access token, or does not know the one it gave: the credentials are wrong.",
            "Check that [dingtalk] client_id and client_secret are of one app and without blanks, then run dingbridge "
            "check.",
        ),
        "token.unavailable": Explanation(
            "DingTalk did not answer properly when asked for an access token.",
            "Nothing is to do, it is fetched again; if it lasts, check the network to api.dingtalk.com and DingTalk's "
            "service status.",
        ),
        # -- the Stream connection
        "link.rejected": Explanation(
            "DingTalk refuses the app's credentials, so there is no Stream connection.",
            "Check in the developer console: Client ID and Client Secret, message mode Stream, a published version, "
            "the egress address in the allow list.",
        ),
        "link.lost": Explanation(
            "The Stream connection to DingTalk broke off.",
            "It comes back by itself; if it happens often, check how long firewall and proxy keep connections, and "
            "whether another process uses the same Client ID.",
        ),
        "link.silent": Explanation(
            "The Stream connection did not answer pings: the network drops what is sent.",
            "It comes back by itself; if it happens often, check the session timeouts of firewall and NAT.",
        ),
        "link.unavailable": Explanation(
            "DingTalk's gateway is not available now.",
            "It is tried again by itself; if it lasts, look at DingTalk's service status.",
        ),
        "link.blocked": Explanation(
            "The call that opens the Stream connection was refused (403).",
            "Check that the proxy lets api.dingtalk.com pass, and that the egress address is in the app's "
            "服务器出口IP白名单.",
        ),
        "link.handshake": Explanation(
            "The WebSocket handshake failed: a proxy or firewall does not let WebSockets through.",
            "Allow port 443 to wss-open-connection.dingtalk.com with the protocol upgrade.",
        ),
        "link.foreign": Explanation(
            "The gateway named for the connection is not DingTalk's and was not used, for safety.",
            "Check [dingtalk] api_base, and whether something in between rewrites answers.",
        ),
        # -- the store
        "store.full": Explanation(
            "The disk with the inbox is full.",
            "Free some space and it goes on by itself, nothing accepted is lost; df -h and [store] url say where.",
        ),
        "store.readonly": Explanation(
            "The inbox's file, folder or database cannot be opened or written.",
            "A file: check that its folder is there, that dingbridge's user may write to it and the disk is not "
            "read-only; PostgreSQL: grant the role its rights, and name in [store] url the server that leads.",
        ),
        "store.corrupt": Explanation(
            "The inbox is damaged, is none of dingbridge's, or its tables are of another version.",
            "Do what the error says: restore a backup, or start with another inbox in [store] url.",
        ),
        "store.disk": Explanation(
            "The disk with the inbox reports errors.",
            "Read the kernel's log with dmesg, make a backup and replace the disk.",
        ),
        "store.newer": Explanation(
            "The inbox was made by a newer dingbridge.",
            "Install that version again, or name another inbox in [store] url.",
        ),
        "store.locked": Explanation(
            "Another dingbridge is using this inbox, or is copying or checking it.",
            "Find it with systemctl status dingbridge or ps, and stop it or wait for its end; an SQLite inbox serves "
            "one process, several machines want PostgreSQL.",
        ),
        "store.unreachable": Explanation(
            "PostgreSQL cannot be reached, or does not answer.",
            "Check that it runs, host and port in [store] url, the firewall, and that connections are left; it goes on "
            "by itself after that, nothing accepted is lost.",
        ),
        "store.password": Explanation(
            "PostgreSQL does not let this role in: a wrong password, or pg_hba.conf does not allow it.",
            "Compare [store] password and the role in url, look at the server's pg_hba.conf, and run dingbridge check.",
        ),
        "store.unavailable": Explanation(
            "The inbox did not take a write.",
            "Read the database's own words in the error, look at the disk, and restart the service if need be.",
        ),
        # -- routes and handlers
        "handler.raised": Explanation(
            "A handler of your own raised an exception.",
            "Find handler.failed with this code in the log, which has the traceback, and mend the handler.",
        ),
        "handler.slow": Explanation(
            "A handler of your own exceeded its time limit.",
            "Give its calls timeouts; if it needs longer, raise [anythingllm] total_timeout_s.",
        ),
        "handler.bad_result": Explanation(
            "A handler of your own returned something unknown.",
            "Let it return an Answer with text, a text, or None.",
        ),
        "route.none": Explanation(
            "No route is open to the asker or to this group.",
            "Ask them to send /whoami, and put the id into users or conversations of a [[route]].",
        ),
        "answer.refused": Explanation(
            "The documents of this route do not have the answer.",
            "Check that the document is in this workspace, and lower its similarity threshold in AnythingLLM if need "
            "be.",
        ),
        # -- dingbridge itself
        "deadline.passed": Explanation(
            "The question waited longer than [limits] answer_deadline_min.",
            "See why the steps before failed (AnythingLLM down or slow, mostly), or raise answer_deadline_min.",
        ),
        "crash.thrice": Explanation(
            "The process died three times while working on this message, so it was given up.",
            "See with journalctl -u dingbridge how it ended (out of memory, a handler's crash, a kill), then have it "
            "asked again.",
        ),
        "bug": Explanation(
            "dingbridge itself failed.",
            "Find message.failed with this code in the log, and report its traceback with the version.",
        ),
    }
)
