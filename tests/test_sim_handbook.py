"""The stand-in for AnythingLLM answers from the handbook, understands follow-ups, and knows what it does not know."""

from __future__ import annotations

from collections.abc import AsyncIterator

import aiohttp
import pytest
from aiohttp import ClientSession

from dingbridge.sim.anythingllm import AnythingLLM, handbook_folder
from dingbridge.sim.retrieval import Document, read_documents, understand
from tests.sim_asking import LODGING, REFUSAL, ask, body, post


@pytest.fixture
async def server() -> AsyncIterator[AnythingLLM]:
    async with AnythingLLM() as running:
        yield running


@pytest.fixture
async def client(server: AnythingLLM) -> AsyncIterator[ClientSession]:
    headers = {"Authorization": f"Bearer {server.api_key}"}
    async with aiohttp.ClientSession(f"{server.url}/", headers=headers) as session:
        yield session


async def test_follow_ups_are_understood_within_a_session(client: ClientSession) -> None:
    """那国外呢 asks on about lodging, 那日本呢 about lodging abroad; without the talk before it is refused."""
    first = await ask(client, LODGING)
    assert "600 元/晚" in first["textResponse"]
    abroad = await ask(client, "那国外呢？")
    assert "220 美元/晚" in abroad["textResponse"]
    assert "600 元/晚" not in abroad["textResponse"]
    japan = await ask(client, "那日本呢？")
    assert "160 美元/晚" in japan["textResponse"]
    assert "220 美元/晚" not in japan["textResponse"]
    assert (await ask(client, "那国外呢？", "fresh"))["textResponse"] == REFUSAL
    assert (await ask(client, "那火星呢？"))["textResponse"] == REFUSAL


async def test_the_same_follow_up_means_what_was_talked_about(client: ClientSession) -> None:
    """那国外呢 after a question on applying is about applying for a trip abroad, not about lodging."""
    await ask(client, "出差要提前多久申请")
    assert "国外出差须提前 15 个工作日" in (await ask(client, "那国外呢？"))["textResponse"]


async def test_a_short_new_question_is_not_drowned_by_the_one_before(client: ClientSession) -> None:
    """A question that stands for itself finds its own document in a session about something else."""
    await ask(client, LODGING)
    answer = await ask(client, "年假几天")
    assert answer["sources"][0]["title"] == "请假与休假制度.md"


async def test_context_in_front_of_a_follow_up_is_used(client: ClientSession) -> None:
    """A client may write the last question and answer above the new one; a fresh session then suffices."""
    question = "上一个问题：出差住宿标准是多少？\n上一个回答：一线城市普通员工 600 元/晚。\n那国外呢？"
    assert "220 美元/晚" in (await ask(client, question, "fresh"))["textResponse"]


async def test_context_in_front_is_not_the_question(client: ClientSession) -> None:
    """What stands above 「现在的问题」 answers nothing by itself, and a question below it may still lean on it."""
    front = "「之前的对话」\n问：出差住宿标准是多少？\n答：一线城市普通员工 600 元/晚。\n\n「现在的问题」\n"
    assert (await ask(client, f"{front}公司的股票代码是多少", "a"))["textResponse"] == REFUSAL
    assert "220 美元/晚" in (await ask(client, f"{front}那国外呢？", "b"))["textResponse"]


async def test_a_corrected_question_that_names_its_topic_needs_no_history(client: ClientSession) -> None:
    """刚才你说住宿标准800，那国外呢 names lodging itself."""
    answer = await ask(client, "刚才你说住宿标准800，那国外呢？")
    assert "220 美元/晚" in answer["textResponse"]


@pytest.mark.parametrize("question", ["差" * 8_000, LODGING * 800, '"OR" NEAR(* ^', "x" * 60_000, "  ", "？"])
async def test_odd_questions_are_answered_or_refused(client: ClientSession, question: str) -> None:
    """Long runs, repeated text and search syntax are questions like others."""
    status, answer = await post(client, body(question))
    assert (status, answer["type"]) == (200, "textResponse")


TRAVEL, LEAVE, NETWORK, NEW = "差旅报销标准", "请假与休假制度", "办公网络与 WiFi 使用指南", "新员工入职指南"
IT, EXPENSES, SUPPLIES, ROOMS = "IT 服务与账号密码", "费用报销与发票管理", "办公用品与设备领用", "会议室预订规则"
SECURITY, BENEFITS, HOURS, ACCESS = "信息安全管理规定", "福利与体检", "考勤与加班管理", "门禁、访客与停车管理"
EXPECTED = [
    ("出差住宿标准是多少？", TRAVEL, "600 元/晚"),
    ("去北京出差酒店一晚上最多能报多少钱", TRAVEL, "600 元/晚"),
    ("去日本出差住宿怎么算", TRAVEL, "160 美元/晚"),
    ("坐高铁可以报一等座吗", TRAVEL, "一等座"),
    ("出差回来多久之内要报销", TRAVEL, "15 个自然日"),
    ("自驾出差怎么补贴", TRAVEL, "1.0 元/公里"),
    ("年假有几天？", LEAVE, "满 10 年不满 20 年"),
    ("我工作12年了，年假有多少天", LEAVE, "12 天"),
    ("没休完的年假能留到明年吗", LEAVE, "结转 5 天"),
    ("病假工资怎么算", LEAVE, "70%"),
    ("老婆生孩子我可以休几天陪产假", LEAVE, "15 天"),
    ("办公室的WiFi叫什么名字", NETWORK, "Example-Office"),
    ("无线网密码是多少", NETWORK, "域账号密码"),
    ("客户来了怎么上网", NETWORK, "Example-Guest"),
    ("VPN怎么开通", NETWORK, "审批—VPN 开通"),
    ("我的vpn连不上了", NETWORK, "动态验证码"),
    ("新员工入职第一天要做什么", NEW, "9:30"),
    ("入职需要带哪些材料", NEW, "身份证"),
    ("试用期多长", NEW, "3 个月"),
    ("工卡丢了怎么补办", NEW, "30 元"),
    ("密码忘了怎么办", IT, "password.example.com"),
    ("账号被锁了", IT, "30 分钟"),
    ("电脑蓝屏了怎么办", IT, "8600"),
    ("发票抬头是什么", EXPENSES, "示例公司"),
    ("报销流程是怎样的？", EXPENSES, "审批—费用报销"),
    ("加班打车能报销吗", EXPENSES, "100 元"),
    ("请客户吃饭人均可以报多少", EXPENSES, "人均 200 元"),
    ("怎么领办公用品", SUPPLIES, "行政仓库"),
    ("研发的电脑几年换一次", SUPPLIES, "3 年"),
    ("怎么订会议室？", ROOMS, "智能会议室"),
    ("会议室最多可以提前几天预定", ROOMS, "14 天"),
    ("收到钓鱼邮件怎么处理", SECURITY, "举报钓鱼邮件"),
    ("可以用ChatGPT写代码吗", SECURITY, "AI"),
    ("笔记本电脑丢了怎么办", SECURITY, "8911"),
    ("体检什么时候", BENEFITS, "5 月至 7 月"),
    ("内推奖金多少", BENEFITS, "8000 元"),
    ("周末加班有加班费吗", HOURS, "2 倍工资"),
    ("上班时间是几点到几点", HOURS, "9:00 至 18:00"),
    ("忘记打卡怎么补", HOURS, "补卡申请"),
    ("每周可以在家办公几天", HOURS, "1 天"),
    ("停车费多少", ACCESS, "200 元"),
    ("访客怎么进大楼", ACCESS, "访客邀约"),
]
OFF_TOPIC = [
    "火星上有生命吗",
    "今天股票行情怎么样",
    "食堂今天吃什么",
    "北京今天天气怎么样",
    "帮我写一首关于春天的诗",
    "附近有什么好吃的餐厅",
    "公司明年会上市吗",
    "世界杯冠军是哪个国家",
    "红烧肉怎么做",
    "老板的手机号是多少",
    "下个季度的销售目标是多少",
    "xylophone quantum zebra",
    "你好",
]


async def test_most_questions_find_their_document_and_the_fact(client: ClientSession) -> None:
    """At least nine of ten realistic questions name the right document first and quote the fact."""
    missed = []
    for number, (question, title, fact) in enumerate(EXPECTED):
        answer = await ask(client, question, f"evaluation {number}")
        found = [source["title"] for source in answer["sources"][:1]]
        if found != [f"{title}.md"] or fact not in answer["textResponse"]:
            missed.append((question, found, answer["textResponse"]))
    assert len(missed) <= len(EXPECTED) // 10, missed


@pytest.mark.parametrize("question", OFF_TOPIC)
async def test_off_topic_questions_are_refused(client: ClientSession, question: str) -> None:
    """What the handbook does not cover is not answered from it."""
    assert (await ask(client, question))["textResponse"] == REFUSAL


async def test_answers_are_short_and_name_their_document(client: ClientSession) -> None:
    """An answer opens with its document and quotes lines, not a whole chunk."""
    for number, (question, title, _) in enumerate(EXPECTED):
        text = (await ask(client, question, f"short {number}"))["textResponse"]
        assert text.startswith(f"根据《{title}》"), (question, text)
        assert len(text) <= 700, (question, text)


def test_filler_and_time_words_carry_no_meaning() -> None:
    """Courtesy, question words and words of time are dropped; same things are written the same."""
    assert understand("请问现在境外的酒店是多少呢？").runs == ("国外", "住宿")
    assert understand("今天怎么样？").runs == ()


@pytest.mark.parametrize("document", read_documents(handbook_folder()), ids=lambda document: document.name)
def test_handbook_documents_are_whole(document: Document) -> None:
    """Every file has its title, front line, a table and references only to documents that exist."""
    titles = {other.heading for other in read_documents(handbook_folder())}
    lines = document.text.splitlines()
    assert lines[0] == f"# {document.heading}"
    assert 40 <= len(lines) <= 90
    assert document.department
    assert any(line.startswith("| ---") for line in lines)
    assert {part.split("》")[0] for part in document.text.split("见《")[1:]} <= titles
