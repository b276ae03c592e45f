"""What `dingbridge store` says, in Chinese and English; a part of `words.py`."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

STORE_ZH: Mapping[str, str] = MappingProxyType(
    {
        "migrated": "{store}：已从版本 {before} 升级到 {after}。",
        "migrated_nothing": "{store}：已经是版本 {after}，没有要做的。",
        "progress_check": "正在检查",
        "progress_copy": "正在复制",
        "progress_verify": "正在核对",
        "checked": "{store}（版本 {version}）：",
        "store_whole": "完好。",
        "store_finding": "问题：{what}，{count} 处：{examples}",
        "copied": "已把 {source} 复制到 {store}，逐行核对，全部一致：",
        "copied_before": "没有要做的：{source} 早已复制到 {store} 并核对过：",
        "copied_digest": "内容摘要 {digest}",
        "copied_returned": "有 {count} 条停机时正在处理，已放回队列。",
        "copied_next": '下一步：每个守护进程的配置里 [store] 写 url = "{url}"，然后启动；'
        "旧文件留作备份，不要再用它启动。",
        "breach_file": "文件损坏",
        "mend_file": "从备份恢复；没有备份时停下守护进程，用 sqlite3 旧文件 .recover 导出能读的部分。",
        "breach_copy": "复制没有做完",
        "mend_copy": "再次执行 dingbridge store copy --from 那个文件，它会接着做。",
        "breach_lane_without_head": "队列的首条不存在或已结束",
        "mend_lane_without_head": "停下守护进程，从备份恢复；没有备份时从 lane 表里删掉这些 key，问题由提问者再问。",
        "breach_lane_out_of_order": "队列的首条不是最早的",
        "mend_lane_out_of_order": "停下守护进程，从备份恢复；不恢复时这些问题仍会回答，只是次序变了。",
        "breach_message_without_lane": "没结束的消息不在任何队列里，永远轮不到",
        "mend_message_without_lane": "dingbridge inbox drop --quiet 编号，请提问者再问。",
        "breach_leased_without_lease": "标着正在回答，却没有人领着",
        "mend_leased_without_lease": "dingbridge inbox drop --quiet 编号，请提问者再问。",
        "breach_lease_without_owner": "领着消息的守护进程已经没了，期限也过了",
        "mend_lease_without_owner": "启动 dingbridge：运行着的守护进程会接手。已有在运行时看它的日志。",
        "breach_unknown_name": "状态、任务或结果不是这个版本认识的",
        "mend_unknown_name": "是更新的版本写的就用那个版本；否则从备份恢复。",
        "breach_half_ended": "结束时间与状态、结果对不上",
        "mend_half_ended": "从备份恢复；没有备份时 dingbridge inbox drop --quiet 编号。",
        "breach_wrong_code": "编号与消息对不上",
        "mend_wrong_code": "从备份恢复；消息照常处理，只是按编号找不到它。",
        "breach_unreadable": "问题或答案的内容读不出来",
        "mend_unreadable": "dingbridge inbox drop --quiet 编号，请提问者再问。",
    }
)

STORE_EN: Mapping[str, str] = MappingProxyType(
    {
        "migrated": "{store}: brought from version {before} to {after}.",
        "migrated_nothing": "{store}: is of version {after}, nothing to do.",
        "progress_check": "checking",
        "progress_copy": "copying",
        "progress_verify": "comparing",
        "checked": "{store} (version {version}):",
        "store_whole": "It is whole.",
        "store_finding": "Wrong: {what}, {count} times: {examples}",
        "copied": "{source} is copied to {store}, and each row is compared and equal:",
        "copied_before": "Nothing to do: {source} has been copied to {store} and compared:",
        "copied_digest": "digest of the content {digest}",
        "copied_returned": "{count} were in work when their daemon died, and are back in the queue.",
        "copied_next": 'Next: in every daemon\'s configuration, [store], write url = "{url}", and start them; '
        "keep the old file as a backup, and start none on it.",
        "breach_file": "the file is damaged",
        "mend_file": "Restore a backup; without one stop the daemon and save what can be read with "
        "sqlite3 FILE .recover.",
        "breach_copy": "a copy is not finished",
        "mend_copy": "Call dingbridge store copy --from that file again; it goes on where it was.",
        "breach_lane_without_head": "a lane's head is not there, or has ended",
        "mend_lane_without_head": "Stop the daemons and restore a backup; without one delete these keys from the table "
        "lane, and let their askers ask again.",
        "breach_lane_out_of_order": "a lane's head is not its oldest message",
        "mend_lane_out_of_order": "Stop the daemons and restore a backup; left as they are these are answered, but "
        "out of order.",
        "breach_message_without_lane": "an unfinished message is in no lane, so nobody will work on it",
        "mend_message_without_lane": "dingbridge inbox drop --quiet CODE, and let its asker ask again.",
        "breach_leased_without_lease": "a message is marked as in work, but nobody holds it",
        "mend_leased_without_lease": "dingbridge inbox drop --quiet CODE, and let its asker ask again.",
        "breach_lease_without_owner": "who works on a message is gone, and the lease has ended",
        "mend_lease_without_owner": "Start dingbridge: a daemon that runs takes it over. Where one runs, see its log.",
        "breach_unknown_name": "a state, task or outcome is none that this version knows",
        "mend_unknown_name": "Use the newer version that wrote it, if one did; else restore a backup.",
        "breach_half_ended": "the time of the end does not go with state and outcome",
        "mend_half_ended": "Restore a backup; without one dingbridge inbox drop --quiet CODE.",
        "breach_wrong_code": "a code is not that of its message",
        "mend_wrong_code": "Restore a backup; the message is worked on all the same, but not found by its code.",
        "breach_unreadable": "a question or an answer cannot be read",
        "mend_unreadable": "dingbridge inbox drop --quiet CODE, and let its asker ask again.",
    }
)
