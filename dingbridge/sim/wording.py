"""Chinese questions cut down to what they ask about: same words for same things, no filler, character pairs."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator

_LONGEST_QUESTION = 2_000

_SAME = {
    "住宿": "酒店 宾馆 旅馆 住店",
    "国外": "境外 海外 出国 外国",
    "wifi": "wi-fi wlan 无线网络 无线网 无线",
    "打车": "出租车 打的 网约车 滴滴",
    "忘记": "忘了 忘掉 想不起来 没来得及",
    "电脑": "笔记本电脑 笔记本",
    "工资": "薪水 薪资 薪酬 发薪",
    "丢失": "丢了 弄丢 遗失 不见了",
    "损坏": "坏了 坏掉 弄坏 故障",
    "账号": "账户 帐号 帐户",
    "加班费": "加班工资",
    "居家办公": "在家办公 远程办公 在家上班",
    "产假": "生孩子 生小孩 生育假",
    "陪产假": "陪护假 护理假",
    "年假": "年休假 带薪假",
    "预订": "预定 预约",
    "预订会议室": "订会议室 定会议室 借会议室",
    "会议": "开会",
    "工牌": "工卡 门禁卡 员工卡",
    "领取": "领用 申领",
    "重置": "重设 找回",
    "停车": "车位",
    "名称": "名字",
    "内部推荐": "内推",
    "奖励": "奖金",
    "业务招待": "请客户吃饭 请客户 请客 招待客户",
    "工作时间": "上班时间 作息时间 几点上班 几点下班",
    "结转": "留到 延到 累积到",
    "未": "没",
    "没有": "",
    "结束后": "回来后 回来",
    "元": "块钱 块",
    "10000": "一万 1万",
    "ai工具": "chatgpt deepseek 大模型 豆包",
    "客户": "客人 来宾",
    "修": "维修 报修 修理",
    "补贴": "补助",
    "专用发票": "专票",
    "普通发票": "普票",
    "法定节假日": "国庆 五一 元旦 法定假日",
    "有效": "过期 失效",
    "每月": "一个月 每个月",
    "更换": "换一台 换一次 换个新 换个 换新",
    "面试候选人": "来面试的人 面试者 面试人员",
    "纳税人识别号": "税号",
    "病假": "生病请假 生病 病休",
    "剩余": "余额 还剩 剩下",
    "出差": "差旅",
    "进大楼": "进来 进楼",
    "社保与公积金": "五险一金",
    "入职当天": "入职第一天 报到当天 报到那天",
}
_CANONICAL = {word: target for target, words in _SAME.items() for word in (target, *words.split())}
_CANONICAL_PATTERN = re.compile("|".join(sorted(map(re.escape, _CANONICAL), key=len, reverse=True)))

_FILLER = """
请问 请教 麻烦 你好 您好 谢谢 谢了 一下 告诉我 告诉 帮我 帮忙 我想问 想问 想知道 知道 咨询 了解
问一问 问下 查下 看看 多少钱 多少 多久 多长时间 多长 多大 几天 几个 几次 几点 几号 什么时候 什么
啥时候 啥 哪里 哪儿 哪些 哪个 哪天 怎么办 怎么样 怎么弄 怎么 怎样 如何 咋办 咋 为什么 为何 有没有
能不能 可不可以 可以不可以 是不是 要不要 会不会 可以 能够 能否 是否 应该 需要 得 要 能 会 想 会有
的话 如果 假如 要是 但是 然后 还是 或者 以及 之内 以内 需 今天 明天 昨天 后天 现在 目前 最近 下周
本周 上周 这周 下个月 这个月 本月 上个月 今年 明年 去年 刚才 刚刚 之前 你说 你们 我们 咱们 他们 大家
公司 单位 自己 我 你 您 他 她 它 们 那么 那 还有 另外 呢 吗 吧 啊 呀 哦 嘛 么 哈 的 了 是 有 在 和
跟 与 把 被 给 就 都 也 最多 最少 一共 大概 到底 最大 最高 最低 几 在哪 规定 情况 事情 问题 关于
对于 具体 相关 方面 这个 那个 这种 这 谁 去 安排 一点
"""
_KEPT = ("要求", "会议", "会员", "获得", "功能", "性能", "新能源", "有效", "在线", "给付", "重要", "智能", "在家")
_FILLER_PATTERN = re.compile(
    "(" + "|".join(_KEPT) + ")|" + "|".join(sorted(map(re.escape, _FILLER.split()), key=len, reverse=True))
)
_SPLIT_LEAVE = re.compile(r"请(.{0,2}[\d半几两一二三四五]天)([病事年婚丧]?假)")
_HEADS = re.compile(r"(\d+) ?个人")
_RUN = re.compile(r"[a-z0-9]+|[\u4e00-\u9fff]+")


def canonical(text: str) -> str:
    """Lower case, plain width, and one word for what means the same."""
    plain = unicodedata.normalize("NFKC", text).lower()
    plain = _HEADS.sub(r"\1人 ", _SPLIT_LEAVE.sub(r"请假 \1 \2", plain))
    return _CANONICAL_PATTERN.sub(lambda found: _CANONICAL[found[0]], plain)


def tokens(text: str) -> Iterator[str]:
    """What a section is indexed under: words and numbers, single characters and pairs of them."""
    for run in _RUN.findall(canonical(text)):
        if run.isascii():
            yield run
        else:
            yield from run
            yield from (run[at : at + 2] for at in range(len(run) - 1))


def content(question: str) -> tuple[str, ...]:
    """The runs of a question that carry meaning: without filler, courtesy and words of time."""
    text = canonical(question[:_LONGEST_QUESTION])
    return tuple(_RUN.findall(_FILLER_PATTERN.sub(lambda found: found[1] or " ", text)))
