"""Every text a chat user reads, one catalogue a locale. Operators' texts are the errors' own, in `errors.py`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType

NOTICE = "notice"
# What AnythingLLM says where a workspace has no refusal of its own.
UNSAID = "There is no relevant information in this workspace to answer your query."

_ZH: Mapping[str, str] = MappingProxyType(
    {
        NOTICE: "正在查询，请稍候…",
        "title": "回复",
        "sources": "来源：",
        "sources_more": "另有 {count} 篇",
        "whole_answer": "查看全文（需公司网络/VPN）",
        "button_deep": "再深入",
        "button_human": "转人工",
        "send_human": "/转人工 {code}",
        "commands": "有用请发 /good，没用请发 /bad 和原因。",
        "commands_deep": "有用请发 /good，没用请发 /bad 和原因，想要更仔细的回答请发 /deep。",
        "examples": "您可以这样问：",
        "hint": "提示：可以接着追问；发送 /new 开始新的话题，发送 /help 看看我还能做什么。",
        "passage": "来源 {count} 的原文：",
        "passage_none": "这个回答没有注明来源，没有原文可以看。",
        "passage_one": "这个回答只有 1 篇来源，发送 /出处 1 可以看它的原文。",
        "passage_range": "这个回答有 {count} 篇来源，请发送 /出处 加上 1 到 {count} 之间的数字。",
        "passage_empty": "这篇来源没有附带原文，我只知道它的名字。",
        "repeat_mark": "（可能重复）",
        "partial": "（回答到这里中断了，以上是已经收到的部分，您可以再问一次。）",
        "question_cut": "（您的问题比较长，这次只查询了前面的部分，其余内容请另外再问。）",
        "answer_cut": "（回答太长，后面的部分没有发出，可以把问题问得更具体一些。）",
        "refused": "抱歉，资料里没有找到相关内容。您可以换个说法再问，或者问得更具体一些。",
        "unrouted": "您好，目前还没有为您开通知识库。请发送 /whoami，再把我回复的内容转给管理员，请管理员为您开通。",
        "busy": "您还有 {waiting} 个问题在排队，这个问题暂时没有收下。"
        "请等前面的答完后再发一次，或者发送 /cancel 取消排队的问题。",
        "limited": "您问得有点快，这个问题暂时没有收下。请过一分钟再发一次。",
        "unreadable": "抱歉，这种消息我看不懂。我能看文字、图片、语音，以及 PDF、Word、Excel 等文件，"
        "请换一种方式发给我。",
        "unreadable_group": "抱歉，这种消息我看不懂。在群里我能看文字和图片；语音和文件请在单聊里发给我。",
        "unreadable_voice": "抱歉，这段语音没有转成文字，我没听懂。请再说一次，或者用文字发给我。",
        "picture_question": "请看这张图片，说明里面的内容，并回答其中提出的问题。",
        "file_question": "请概括这份文件的主要内容。",
        "quoted_front": "「引用的消息」\n{quoted}",
        "turn_front": "「之前的对话」\n问：{question}\n答：{answer}",
        "question_front": "「现在的问题」\n{question}",
        "file_too_large": "抱歉，这个文件太大，我看不了。图片不能超过 10 MB，文件不能超过 20 MB"
        "（一次发几个时合起来算），请压缩或者拆开后再发。",
        "file_kind": "抱歉，这种文件我看不了。我能看的图片有 PNG、JPG、GIF、WebP、BMP，能看的文件有 PDF、DOCX、XLSX、"
        "PPTX、TXT、MD、CSV、HTML、JSON、ODT、EPUB。旧版的 DOC、XLS、PPT 请另存为新版再发。",
        "file_expired": "抱歉，这个文件已经过期，钉钉不再提供下载，所以没能看到。请重新发一次。",
        "file_unavailable": "抱歉，没能从钉钉取到您发的文件，这个问题没能答上来。"
        "请过一会儿重新发一次；如果还是不行，请把下面的编号告诉管理员。",
        "file_unread": "（知识库这次没有读到您发的文件“{names}”，上面的回答没有参考它。"
        "请稍后重新发一次，或者告诉管理员。）",
        "quota": "本组织的钉钉消息额度已经用完，我暂时看不到消息内容，再发也无法回答。请告诉管理员处理，谢谢。",
        "trouble": "抱歉，知识库暂时没有回应。您的问题已经记下，恢复后我会自动回答，不用重新发送。",
        "backend_unavailable": "抱歉，知识库一直没有回应，这个问题没能答上来。"
        "请过一会儿再问一次；如果还是不行，请把下面的编号告诉管理员。",
        "backend_rejected": "抱歉，知识库的设置有问题，这个问题没能答上来。"
        "再问也不会有结果，请把下面的编号告诉管理员处理。",
        "backend_failed": "抱歉，知识库返回的内容无法识别，这个问题没能答上来。"
        "您可以再问一次；如果还是不行，请把下面的编号告诉管理员。",
        "expired": "抱歉，等了太久，这个问题没能答上来。如果仍然需要，请再问一次。",
        "failed": "抱歉，处理这个问题时出了错。再问一次多半也是这样，请把下面的编号告诉管理员。",
        "dead": "抱歉，这个问题试了几次都没能处理完，已经停止重试。再问一次可能还是这样，请把下面的编号告诉管理员。",
        "dropped": "抱歉，这个问题被管理员从队列里移除了，没有回答。需要的话请再问一次，或者联系管理员。",
        "unsafe": "抱歉，回答的内容没有通过钉钉的内容检查，无法发出。请换个问法再问一次。",
        "code": "编号 {code}",
        "help": "直接把问题发给我就可以，我会在公司资料里查找答案，并注明来源。\n\n您还可以发送：\n\n{commands}",
        "help_line": "- **{name}** {about}",
        "about_help": "看看我能做什么（也可以发“帮助”）",
        "about_deep": "换更仔细的方式再回答一次：不带文字是上一个问题，也可以在后面写新的问题",
        "about_sources": "看第几篇来源的原文，例如 /出处 1",
        "about_full": "查看上一个回答的全文",
        "about_human": "把上一个问题转给同事处理（也可以发“转人工”）",
        "about_good": "上一个回答有用",
        "about_bad": "上一个回答没用，后面可以写原因",
        "about_reply": "回复转给您的问题：/回复 编号 内容",
        "about_solved": "转给您的问题已经解决：/已解决 编号",
        "about_new": "开始新的话题，不再参考前面的对话（也可以发“新对话”）",
        "about_cancel": "取消还没有回答的问题（也可以发“取消”）",
        "about_status": "看看您的问题排到哪里了（也可以发“状态”）",
        "about_whoami": "显示您的编号，申请开通时发给管理员（也可以发“我是谁”）",
        "new": "好的，我们开始新的话题。之前还没答完的问题会照常回答。",
        "cancelled": "已为您取消 {count} 个还没有回答的问题。",
        "nothing_to_cancel": "您现在没有等待回答的问题。",
        "status_idle": "一切正常，您现在没有等待回答的问题。",
        "status_waiting": "您有 {count} 个问题在等待回答，最早的一个已经等了 {seconds} 秒。",
        "status_running": "它正在回答中。",
        "status_ahead": "它前面还有 {count} 个问题。",
        "nothing_told": "我还没有在这里给您回答过问题，或者那个回答已经过期。请先提一个问题。",
        "deep_none": "目前没有为您开通深入回答。您可以换个说法再问一次，或者发送 /转人工。",
        "thanks_good": "谢谢，已记下。",
        "thanks_bad": "已记下。方便的话，请发送 /bad 加上原因，帮助我们改进。",
        "thanks_reason": "谢谢，原因已记下。",
        "no_page": "这个回答没有网页版。",
        "page_here": "“{question}”的回答：",
        "no_contact": "这个问题没有指定负责的同事。请换个说法再问一次，或者联系管理员。",
        "hand_over_done": "好的，问题和回答已经转给负责的同事，有结果我会在这里告诉您。",
        "hand_over_before": "这个问题已经转给同事了，请再等一等。",
        "one_to_one": "单聊",
        "handed_over": "**转人工** 编号 {code}\n\n{who}（{where}）的问题需要您处理。\n\n**问题**\n\n{question}\n\n"
        "**机器人的回答**\n\n{answer}\n\n引用本条消息回复，或者发送 `/回复 {code} 内容`，我会转告提问的人；"
        "已经处理好的话，发送 `/已解决 {code}`。",
        "handover_reply": "您转人工的问题有答复了。\n\n**问题**\n\n{question}\n\n**{who} 的答复**\n\n{reply}",
        "handover_solved": "您转人工的问题，{who} 已经处理好了。\n\n**问题**\n\n{question}",
        "handover_unreached": "抱歉，没能联系上负责的同事，您转人工的问题没有送到。请把下面的编号告诉管理员。\n\n"
        "**问题**\n\n{question}",
        "handover_closed": "已转告提问的人，谢谢。",
        "handover_closed_before": "这个问题之前已经处理过了。",
        "handover_unknown": "没有找到转给您的这个编号，请核对一下。",
        "reply_how": "请这样回复：/回复 编号 内容",
        "solved_how": "请带上编号：/已解决 编号",
        "card_below": "回答见下面的消息。",
        "card_cancelled": "已取消。",
        "card_ended": "这个问题没有答上来。",
        "press_gone": "这个回答已经过期。",
        "press_not_yours": "这个按钮只有能看到这个回答的人可以用。",
        "press_deep": "正在深入回答…",
        "press_full": "全文链接马上发到聊天里。",
        "press_human": "正在转给同事…",
        "next_deep": "发送 /deep 换更仔细的方式再找一次。",
        "next_human": "发送 /转人工，交给负责的同事。",
        "whoami_single": '这是您的用户编号，请转给管理员填入配置：\n\n`users = ["{person}"]`',
        "whoami_group": '这是本群和您的编号，请转给管理员，按需要填入配置：\n\n`conversations = ["{conversation}"]`\n\n'
        '`users = ["{person}"]`',
        "page_title": "回答",
        "page_question": "问题",
        "page_answer": "回答",
        "page_answered": "回答于 {when:%Y年%m月%d日 %H:%M}（北京时间）",
        "page_route": "知识库：{name}",
        "page_code": "编号",
        "page_copy": "复制",
        "page_copied": "已复制",
        "page_print": "打印",
        "page_sources": "来源（{count}）",
        "page_open": "打开原文",
        "page_no_passage": "这篇资料没有可以显示的原文。",
        "page_table": "表格，可左右滑动",
        "page_image": "〔图片：{name}〕",
        "page_image_unnamed": "〔图片〕",
        "page_feedback": "这个回答有帮助吗？",
        "page_good": "有帮助",
        "page_bad": "没有帮助",
        "page_reason": "原因（选填，不记名）",
        "page_send_reason": "保存原因",
        "page_kept_good": "已记下：有帮助。随时可以改。",
        "page_kept_bad": "已记下：没有帮助。随时可以改。",
        "page_not_kept": "没有记下，请再试一次。",
        "page_until": "本页可以打开到 {when:%Y年%m月%d日 %H:%M}，之后请在聊天里重新提问。",
        "page_outdated": "内容以回答当时的资料为准，可能已过期；重要事项请核对原文。",
        "page_private": "知道这个链接的人都能打开本页，请不要转发给无关的人。",
        "page_gone_title": "打不开这个页面",
        "page_gone": "链接可能已过期，也可能没有复制完整。请回到聊天里重新提问，您会收到新的链接。",
        "page_later_title": "暂时打不开",
        "page_later": "现在暂时打不开这个页面，请过一会儿再刷新。",
    }
)

_EN: Mapping[str, str] = MappingProxyType(
    {
        NOTICE: "Looking it up, one moment…",
        "title": "Reply",
        "sources": "Sources:",
        "sources_more": "and {count} more",
        "whole_answer": "Whole answer (company network/VPN)",
        "button_deep": "Dig deeper",
        "button_human": "Ask a colleague",
        "send_human": "/human {code}",
        "commands": "Helpful? Send /good. If not, send /bad and why.",
        "commands_deep": "Helpful? Send /good. If not, send /bad and why; /deep answers more thoroughly.",
        "examples": "You could ask, for example:",
        "hint": "Tip: you can ask on; /new starts a new topic, /help lists all I can do.",
        "passage": "What source {count} says:",
        "passage_none": "This answer names no sources, so there is no passage to show.",
        "passage_one": "This answer has one source; /sources 1 shows its passage.",
        "passage_range": "This answer has {count} sources; send /sources and a number from 1 to {count}.",
        "passage_empty": "This source came without its text; its name is all I have.",
        "repeat_mark": "(possibly repeated)",
        "partial": "(The answer broke off; this is what arrived. You can ask again.)",
        "question_cut": "(The question was too long; only its beginning was looked up.)",
        "answer_cut": "(The answer was too long; its end was not sent. Try a more specific question.)",
        "refused": "The documents say nothing about this. Try other words, or be more specific.",
        "unrouted": "No knowledge base is open to you yet. Send /whoami and pass the result to your administrator.",
        "busy": "You already have {waiting} questions waiting, so this one was not taken. "
        "Please send it again when they are answered; /cancel drops them.",
        "limited": "That was a bit fast, so this question was not taken. Please send it again in a minute.",
        "unreadable": "I cannot read this kind of message. I can read text, pictures, voice, and files such as PDF, "
        "Word and Excel; please send it that way.",
        "unreadable_group": "I cannot read this kind of message. In a group I can read text and pictures; please send "
        "voice and files to me one to one.",
        "unreadable_voice": "This voice message was not turned into text, so I did not get it. Please say it again, or "
        "send it as text.",
        "picture_question": "Please look at this picture, say what it shows, and answer any question in it.",
        "file_question": "Please sum up the main points of this document.",
        "quoted_front": "[Quoted message]\n{quoted}",
        "turn_front": "[Earlier in this conversation]\nQuestion: {question}\nAnswer: {answer}",
        "question_front": "[The question now]\n{question}",
        "file_too_large": "This file is too large. Pictures may have 10 MB, files 20 MB (several in one message "
        "together); please make it smaller or split it.",
        "file_kind": "I cannot read this kind of file. Pictures may be PNG, JPG, GIF, WebP or BMP; documents PDF, "
        "DOCX, XLSX, PPTX, TXT, MD, CSV, HTML, JSON, ODT or EPUB. Please save old DOC, "
        "XLS and PPT files in the new format.",
        "file_expired": "This file has expired: DingTalk does not hand it out any more. Please send it again.",
        "file_unavailable": "Your file could not be fetched from DingTalk, so this question stays unanswered. "
        "Please send it again a little later; if that does not help, tell your administrator.",
        "file_unread": "(The knowledge base did not read your file “{names}”, so the answer above does not take it "
        "into account. Please send it again later, or tell your administrator.)",
        "quota": "Your organisation's DingTalk message allowance is spent, so the robot cannot read messages. "
        "Please tell your administrator.",
        "trouble": "The knowledge base does not respond. Your question is kept and will be answered by itself; "
        "no need to send it again.",
        "backend_unavailable": "The knowledge base did not respond, so this question stays unanswered. "
        "Asking again a little later may help.",
        "backend_rejected": "The knowledge base is set up wrongly; asking again will not help. "
        "Please tell your administrator.",
        "backend_failed": "The knowledge base's answer could not be read. You can ask again; if that does not help, "
        "tell your administrator.",
        "expired": "This took too long and was given up. Please ask again.",
        "failed": "Something went wrong with this question; asking again may not help. Please tell your administrator.",
        "dead": "This question failed several times and will not be tried again. Please tell your administrator.",
        "dropped": "An administrator removed this question from the queue, so it was not answered. "
        "Please ask again if you still need it, or contact your administrator.",
        "unsafe": "DingTalk's content check did not let the answer through. Please ask differently.",
        "code": "Code {code}",
        "help": "Just type your question; I look it up in the company's documents and name the source.\n\n{commands}",
        "help_line": "- **{name}** {about}",
        "about_help": "what I can do",
        "about_deep": "answer more thoroughly: the last question, or a new one written behind it",
        "about_sources": "what a source says, for example /sources 1",
        "about_full": "read the last answer whole",
        "about_human": "hand the last question to a colleague",
        "about_good": "the last answer was helpful",
        "about_bad": "the last answer was not; you may add why",
        "about_reply": "answer what was handed to you: /reply CODE text",
        "about_solved": "what was handed to you is solved: /solved CODE",
        "about_new": "start a new topic and forget what was said",
        "about_cancel": "drop my unanswered questions",
        "about_status": "where my questions are",
        "about_whoami": "show my ids, for the administrator",
        "new": "All right, a new topic. Questions asked before will still be answered.",
        "cancelled": "Dropped {count} unanswered questions.",
        "nothing_to_cancel": "No question is waiting.",
        "status_idle": "All is well; no question of yours is waiting.",
        "status_waiting": "{count} of your questions are waiting, the oldest for {seconds} seconds.",
        "status_running": "It is being answered.",
        "status_ahead": "{count} questions are ahead of it.",
        "nothing_told": "I have not answered a question of yours here yet, or the answer has expired. "
        "Please ask first.",
        "deep_none": "Deeper answers are not open to you. Try other words, or send /human.",
        "thanks_good": "Thank you, noted.",
        "thanks_bad": "Noted. If you like, send /bad and the reason, so that we can do better.",
        "thanks_reason": "Thank you, the reason is noted.",
        "no_page": "This answer has no page.",
        "page_here": "The answer to “{question}”:",
        "no_contact": "No colleague is named for this question. Try other words, or ask your administrator.",
        "hand_over_done": "All right: the question and its answer went to a colleague. "
        "I will tell you here what comes of it.",
        "hand_over_before": "This question is with a colleague already; please wait a little.",
        "one_to_one": "one to one",
        "handed_over": "**Handed over** Code {code}\n\n{who} ({where}) needs your help.\n\n"
        "**Question**\n\n{question}\n\n"
        "**The robot's answer**\n\n{answer}\n\nQuote this message in your reply, or send `/reply {code} text`, and I "
        "pass it on; if it is dealt with, send `/solved {code}`.",
        "handover_reply": "There is a reply to what you handed over.\n\n**Question**\n\n{question}\n\n"
        "**{who} says**\n\n{reply}",
        "handover_solved": "{who} has dealt with what you handed over.\n\n**Question**\n\n{question}",
        "handover_unreached": "The colleague could not be reached, so what you handed over did not arrive. "
        "Please give your administrator the code below.\n\n**Question**\n\n{question}",
        "handover_closed": "Passed on to who asked, thank you.",
        "handover_closed_before": "This was dealt with before.",
        "handover_unknown": "Nothing with that code was handed to you; please check it.",
        "reply_how": "Please write: /reply CODE text",
        "solved_how": "Please name the code: /solved CODE",
        "card_below": "The answer is in the messages below.",
        "card_cancelled": "Cancelled.",
        "card_ended": "This question was not answered.",
        "press_gone": "This answer has expired.",
        "press_not_yours": "Only those who may read this answer can use its buttons.",
        "press_deep": "Looking deeper…",
        "press_full": "The link is on its way into the chat.",
        "press_human": "Handing it over…",
        "next_deep": "Send /deep for a more thorough search.",
        "next_human": "Send /human to hand it to a colleague.",
        "whoami_single": "Your user id (for the administrator, `users` in the configuration):\n\n"
        '`users = ["{person}"]`',
        "whoami_group": "This group's id and yours (for the administrator, into the configuration):\n\n"
        '`conversations = ["{conversation}"]`\n\n`users = ["{person}"]`',
        "page_title": "Answer",
        "page_question": "Question",
        "page_answer": "Answer",
        "page_answered": "Answered {when:%Y-%m-%d %H:%M} (UTC+8)",
        "page_route": "Knowledge base: {name}",
        "page_code": "Code",
        "page_copy": "Copy",
        "page_copied": "Copied",
        "page_print": "Print",
        "page_sources": "Sources ({count})",
        "page_open": "Open the document",
        "page_no_passage": "No passage of this document can be shown.",
        "page_table": "Table, scrolls sideways",
        "page_image": "[image: {name}]",
        "page_image_unnamed": "[image]",
        "page_feedback": "Was this answer helpful?",
        "page_good": "Helpful",
        "page_bad": "Not helpful",
        "page_reason": "Why (optional, anonymous)",
        "page_send_reason": "Save reason",
        "page_kept_good": "Noted: helpful. You can change it at any time.",
        "page_kept_bad": "Noted: not helpful. You can change it at any time.",
        "page_not_kept": "This was not noted, please try again.",
        "page_until": "This page can be opened until {when:%Y-%m-%d %H:%M}; after that, ask again in the chat.",
        "page_outdated": "It says what the documents said when it was answered and may be out of date; "
        "check the original before you rely on it.",
        "page_private": "Whoever knows this link can open this page; please do not pass it on needlessly.",
        "page_gone_title": "This page cannot be opened",
        "page_gone": "The link has expired, or was not copied whole. Ask again in the chat to get a new one.",
        "page_later_title": "Not just now",
        "page_later": "This page cannot be opened at the moment. Please reload it a little later.",
    }
)

CATALOGUES: Mapping[str, Mapping[str, str]] = MappingProxyType({"zh-CN": _ZH, "en": _EN})


class Texts:
    """`texts("busy", waiting=8)` in the configured locale."""

    def __init__(self, locale: str) -> None:
        self.locale = locale
        self._catalogue = CATALOGUES[locale]

    def __call__(self, key: str, **values: object) -> str:
        return self._catalogue[key].format(**values)

    @property
    def chinese(self) -> bool:
        return self.locale.startswith("zh")

    def listed(self, key: str, lines: Iterable[str]) -> str:
        """A heading and a list; the lines are markdown."""
        return "\n".join([self(key), "", *(f"- {line}" for line in lines)])

    def failure(self, key: str, code: str, **values: object) -> str:
        """What failed in plain words, whether asking again helps, and the code to trace it by, last."""
        text = self._catalogue.get(key, self._catalogue["failed"]).format(**values)
        return f"{text}\n\n{self('code', code=code)}"
