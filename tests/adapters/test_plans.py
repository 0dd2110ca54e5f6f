"""Plans in LangGraph: the tool by which a model submits one, approvals (R18, R19), and steps that ask people."""

import json

import pytest
from adapter_kit import ANYWHERE, BOTH, ai, ask, call, forget_tasks, in_a_node, node_graph, saying, thread
from langchain_core.messages import AIMessage, ToolMessage
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode
from langgraph.types import Command, interrupt

import ibidem
from ibidem import Guard, Live, Plan, Pure, Read, Write
from ibidem.langgraph.approvals import can_be_found

agents = pytest.importorskip("langchain.agents")
middleware = pytest.importorskip("langchain.agents.middleware")


@pytest.fixture
def made():
    """The calls that reached their tools."""
    return []


@pytest.fixture
def tools(made):
    @tool
    def find_user(name: str) -> dict:
        """Find a user."""
        made.append(("find_user", name))
        return {"id": 7, "orders": [{"id": "1"}, {"id": "2"}]}

    @tool
    def get_order(order_id: str) -> dict:
        """Get an order."""
        made.append(("get_order", order_id))
        return {"id": order_id, "status": "packed"}

    @tool
    def cancel_order(order_id: str) -> str:
        """Cancel an order."""
        made.append(("cancel_order", order_id))
        return f"{order_id} cancelled"

    @tool
    def roll_dice() -> int:
        """Nobody has declared what this does."""
        made.append(("roll_dice",))
        return 4

    return [find_user, get_order, cancel_order, roll_dice]


@pytest.fixture
def guard():
    return Guard(
        effects={
            "find_user": Read("user:{name}"),
            "get_order": Read("order:{order_id}"),
            "cancel_order": Write("order:{order_id}"),
        }
    )


def a_plan_tool(tools, guard):
    """The plan tool where nobody approves anything, which an older LangChain must be told."""
    return ibidem.plan_tool(tools, guard, approvals=None if can_be_found() else [])


def step(name, tool_name, **more):
    return {"id": name, "tool": tool_name, **more}


FIND = step("user", "find_user", args={"name": "ann"})
LOOK = step("orders", "get_order", args={"order_id": "$item.id"}, map="$user.orders")
CANCEL = step("gone", "cancel_order", args={"order_id": "$user.orders[0].id"})


def submit(*steps, **more):
    return ai(call("plan", {"steps": list(steps), **more}))


def last(state):
    return next(m for m in reversed(state["messages"]) if isinstance(m, ToolMessage))


def answer(way, plan_tool, *steps, **more):
    message = ask(way, plan_tool, call("plan", {"steps": list(steps), **more}))
    return message.status, message.content


@BOTH
def test_a_model_is_answered_what_each_step_gave(way, tools, guard):
    status, content = answer(way, a_plan_tool(tools, guard), FIND, LOOK)
    assert status == "success"
    told = json.loads(content)
    assert list(told) == ["user", "orders"]
    assert [each["id"] for each in told["orders"]] == ["1", "2"]


@BOTH
def test_results_that_are_not_asked_for_cost_no_tokens(way, tools, guard):
    _, content = answer(way, a_plan_tool(tools, guard), FIND, LOOK, **{"return": ["$orders[1].status", "user"]})
    assert json.loads(content) == {
        "$orders[1].status": "packed",
        "user": {"id": 7, "orders": [{"id": "1"}, {"id": "2"}]},
    }


@BOTH
@pytest.mark.parametrize(
    ("steps", "said"),
    [
        ([step("a", "find_usr", args={})], "step 'a': there is no tool 'find_usr'; did you mean 'find_user'"),
        ([FIND, CANCEL], "step 'gone': cancel_order is no plain read, and has no place in a plan: call it by itself"),
        ([step("d", "roll_dice")], "step 'd': roll_dice is not declared, and has no place in a plan"),
        ([step("a", "find_user", args={"name": ["ann"]})], "step 'a': find_user refuses 'name'"),
        ([step(f"s{n}", "roll_dice") for n in range(51)], "51 steps, and may have 50"),
        ([], None),
    ],
)
def test_a_mistake_comes_back_as_one_message_and_nothing_runs(way, tools, guard, made, steps, said):
    status, content = answer(way, a_plan_tool(tools, guard), *steps)
    assert (status == "error") is (said is not None)
    assert said is None or said in content
    assert made == []


@BOTH
def test_a_failed_step_is_told_with_its_root(way, guard):
    @tool
    def get_order(order_id: str) -> dict:
        """Get an order."""
        raise FileNotFoundError(order_id)

    steps = [step("a", "get_order", args={"order_id": "1"}), step("b", "get_order", args={"order_id": "$a.id"})]
    status, content = answer(way, a_plan_tool([get_order], guard), *steps, **{"return": ["b"]})
    error = json.loads(content)["b"]["error"]
    assert (status, error["kind"]) == ("success", "upstream_failed")
    assert "it needs step 'a', which failed (not_found" in error["message"]


def test_only_declared_writes_are_admitted(tools, guard):
    with pytest.raises(ValueError, match="which is none of the tools"):
        ibidem.plan_tool(tools, guard, writes=["cancel"])
    with pytest.raises(ValueError, match="declare what it changes"):
        ibidem.plan_tool(tools, guard, writes=["roll_dice"])
    with pytest.raises(ValueError, match="none of these is"):
        ibidem.plan_tool(tools, Guard())
    admitted = ibidem.plan_tool(tools, guard, writes=["cancel_order"])._submissions.admitted
    assert admitted == ["find_user", "get_order", "cancel_order"]


def test_the_description_teaches_the_form_in_few_tokens(tools, guard):
    made = a_plan_tool(tools, guard)
    assert made.description.endswith("Tools: find_user, get_order.")
    assert len(made.description) < 1_000
    assert len(json.dumps(made.args_schema)) < 1_600


@ANYWHERE
@BOTH
@pytest.mark.parametrize("wrapped", [False, True])
def test_three_dependent_steps_need_two_model_turns_instead_of_four(way, tools, guard, made, wrapped):
    @tool
    def get_status(status: str) -> str:
        """Explain a status."""
        made.append(("get_status", status))
        return f"{status}: it leaves tomorrow"

    guard = guard.replace(effects={**guard._options["effects"], "get_status": Pure()})
    tools = [*tools, get_status]
    third = step("said", "get_status", args={"status": "$order.status"})
    second = step("order", "get_order", args={"order_id": "$user.orders[0].id"})

    def turns(model, extra):
        agent = agents.create_agent(model, [*tools, *extra])
        agent = ibidem.wrap(agent, guard) if wrapped else agent
        state = ask(way, agent, {"messages": [("user", "Where is my order?")]})
        return sum(isinstance(m, AIMessage) for m in state["messages"]), last(state).content

    one_by_one = saying(
        ai(call("find_user", {"name": "ann"})),
        ai(call("get_order", {"order_id": "1"})),
        ai(call("get_status", {"status": "packed"})),
        "Tomorrow.",
    )
    planned = saying(submit(FIND, second, third, **{"return": ["said"]}), "Tomorrow.")
    assert turns(one_by_one, [])[0] == 4
    made.clear()
    count, told = turns(planned, [ibidem.plan_tool(tools, guard, approvals=[])])
    assert (count, json.loads(told)) == (2, {"said": "packed: it leaves tomorrow"})


def agent_with(tools, plan_tool, *steps, mode="batched", on=None, guard=None, **more):
    if not can_be_found():
        pytest.skip("the middleware of this LangChain cannot be found: the plan tool says so")
    approval = middleware.HumanInTheLoopMiddleware(interrupt_on=on or {"cancel_order": True}, interrupt_mode=mode)
    agent = agents.create_agent(
        saying(submit(*steps), "Done."),
        [*tools, plan_tool],
        middleware=[approval],
        checkpointer=InMemorySaver(),
        **more,
    )
    return ibidem.wrap(agent, guard) if guard is not None else agent


def decide(mode, *decisions):
    return Command(resume={"decisions": list(decisions)} if mode == "batched" else decisions[0])


MODES = pytest.mark.parametrize("mode", ["batched", "per_call"])


@BOTH
@MODES
@pytest.mark.parametrize("wrapped", [False, True])
def test_a_plan_asks_for_the_approval_that_guards_a_call_by_its_name(way, mode, wrapped, tools, guard, made):
    plan_tool = ibidem.plan_tool(tools, guard, writes=["cancel_order"])
    agent = agent_with(tools, plan_tool, FIND, CANCEL, mode=mode, guard=guard if wrapped else None)
    state = ask(way, agent, {"messages": [("user", "Cancel it.")]}, thread("t"))
    assert made == [("find_user", "ann")]
    (asked,) = state["__interrupt__"]
    request = asked.value["action_requests"][0] if mode == "batched" else asked.value
    assert (request["name"], request["args"]) == ("cancel_order", {"order_id": "1"})
    state = ask(way, agent, decide(mode, {"type": "approve"}), thread("t"))
    assert made.count(("cancel_order", "1")) == 1
    assert json.loads(last(state).content)["gone"] == "1 cancelled"


@BOTH
@MODES
def test_what_is_rejected_does_not_run_and_who_needs_it_is_told(way, mode, tools, guard, made):
    plan_tool = ibidem.plan_tool(tools, guard, writes=["cancel_order"])
    needs = step("after", "get_order", args={"order_id": "1"}, after=["gone"])
    agent = agent_with(tools, plan_tool, FIND, CANCEL, needs, mode=mode)
    ask(way, agent, {"messages": [("user", "Cancel it.")]}, thread("t"))
    state = ask(way, agent, decide(mode, {"type": "reject", "message": "keep it"}), thread("t"))
    assert all(name != "cancel_order" for name, *_ in made)
    told = json.loads(last(state).content)
    assert "keep it" in told["gone"]["error"]["message"]
    assert told["after"]["error"]["kind"] == "upstream_failed"


@BOTH
@MODES
def test_an_edit_and_an_answer_in_its_place_are_obeyed(way, mode, tools, guard, made):
    plan_tool = ibidem.plan_tool(tools, guard, writes=["cancel_order"])
    other = step("other", "cancel_order", args={"order_id": "$user.orders[1].id"}, after=["gone"])
    agent = agent_with(tools, plan_tool, FIND, CANCEL, other, mode=mode)
    ask(way, agent, {"messages": [("user", "Cancel them.")]}, thread("t"))
    edited = {"type": "edit", "edited_action": {"name": "cancel_order", "args": {"order_id": "9"}}}
    state = ask(way, agent, decide(mode, edited), thread("t"))
    (asked,) = state["__interrupt__"]
    assert '"2"' in json.dumps(asked.value)
    state = ask(way, agent, decide(mode, {"type": "respond", "message": "done by hand"}), thread("t"))
    told = json.loads(last(state).content)
    assert (told["gone"], told["other"]) == ("9 cancelled", "done by hand")
    assert [each for each in made if each[0] == "cancel_order"] == [("cancel_order", "9")]


@BOTH
def test_reads_that_are_guarded_are_asked_about_too(way, tools, guard, made):
    agent = agent_with(tools, ibidem.plan_tool(tools, guard), FIND, on={"find_user": True})
    state = ask(way, agent, {"messages": [("user", "Who?")]}, thread("t"))
    assert state["__interrupt__"]
    assert made == []


@BOTH
def test_in_a_graph_built_by_hand_approvals_are_named(way, tools, guard, made):
    plan_tool = ibidem.plan_tool(tools, guard, writes=["cancel_order"], approvals=["cancel_order"])
    graph = node_graph(ToolNode([plan_tool]), checkpointer=InMemorySaver())
    ask(way, graph, {"messages": [submit(FIND, CANCEL)]}, thread("t"))
    assert made == [("find_user", "ann")]
    ask(way, graph, decide("batched", {"type": "approve"}), thread("t"))
    assert made.count(("cancel_order", "1")) == 1


def test_outside_a_graph_nobody_can_be_asked_and_nothing_guarded_runs(tools, guard, made):
    plan_tool = ibidem.plan_tool(tools, guard, writes=["cancel_order"], approvals={"cancel_order": True})
    with pytest.raises(RuntimeError):
        plan_tool.invoke({"steps": [FIND, CANCEL]})
    assert all(name != "cancel_order" for name, *_ in made)


def test_an_approval_is_not_for_what_has_changed_meanwhile(tools, guard, made):
    """R19: the yes was given to cancelling order 1; by the time it comes, the plan would cancel another."""
    current = {"id": "1"}

    @tool
    def latest() -> dict:
        """The latest order."""
        return dict(current)

    guard = guard.replace(effects={**guard._options["effects"], "latest": Live()})
    plan_tool = ibidem.plan_tool([*tools, latest], guard, writes=["cancel_order"])
    steps = step("it", "get_order", args={"order_id": "1"}), step("gone", "cancel_order", args={"order_id": "$it.id"})
    agent = agent_with([*tools, latest], plan_tool, *steps)
    ask("sync", agent, {"messages": [("user", "Cancel it.")]}, thread("t"))
    guard.touch("order:1")
    tools[1].func = lambda order_id: {"id": "8"}
    state = ask("sync", agent, decide("batched", {"type": "approve"}), thread("t"))
    assert all(name != "cancel_order" for name, *_ in made)
    assert state["__interrupt__"][0].value["action_requests"][0]["args"] == {"order_id": "8"}
    ask("sync", agent, decide("batched", {"type": "approve"}), thread("t"))
    assert [each for each in made if each[0] == "cancel_order"] == [("cancel_order", "8")]


# -- steps that ask people themselves ---------------------------------------------------------------------------------


@ANYWHERE
@BOTH
@pytest.mark.parametrize("concurrency", [1, None])
def test_steps_that_ask_get_their_own_answers_and_what_has_run_does_not_run_again(way, concurrency):
    """R19, the A=YES, B=NO case inside one plan, whichever of its steps asks first."""
    ran = []

    def read(x):
        ran.append(("read", x))
        return x

    def change(x):
        ran.append(("change", x))
        return x

    def pay(name, x):
        answer = interrupt(f"pay {name}?")
        ran.append(("pay", name, answer))
        return f"{name}={answer}"

    def build():
        plan = Plan()
        first = plan.call(read, x=1)
        plan.call(change, x=first)
        plan.call(pay, name="A", x=first)
        plan.call(pay, name="B", x=first)
        plan.call(change, x="late")
        return plan

    guard = Guard(effects={"read": Read("r"), "change": Write("c:{x}"), "pay": Write("account:{name}")})
    graph, results = in_a_node(way, build, guard, max_concurrency=concurrency)
    asked = {}
    state = ask(way, graph, {"messages": []}, thread("t"))
    for _ in range(4):
        if "__interrupt__" not in state:
            break
        (question,) = state["__interrupt__"]
        word = "YES" if "A" in question.value else "NO"
        asked[question.value] = word
        state = ask(way, graph, Command(resume={question.id: word}), thread("t"))
    assert asked == {"pay A?": "YES", "pay B?": "NO"}
    assert sorted(each for each in ran if each[0] == "pay") == [("pay", "A", "YES"), ("pay", "B", "NO")]
    assert sorted(map(str, (each for each in ran if each[0] == "change"))) == ["('change', 'late')", "('change', 1)"]
    assert ran.count(("read", 1)) == 1
    assert (results[-1]["pay"], results[-1]["pay_2"]) == ("A=YES", "B=NO")


@ANYWHERE
@BOTH
def test_a_read_that_changed_while_a_person_was_asked_is_read_again(way):
    state = {"x": 1}

    def look():
        return state["x"]

    def pay(x):
        return f"{interrupt('?')} {x}"

    def build():
        plan = Plan()
        plan.call(pay, x=plan.call(look))
        return plan

    guard = Guard(effects={"look": Read("x"), "pay": Write("account")})
    graph, results = in_a_node(way, build, guard)
    ask(way, graph, {"messages": []}, thread("t"))
    state["x"] = 2
    guard.touch("x")
    ask(way, graph, Command(resume="yes"), thread("t"))
    assert results[-1]["pay"] == "yes 2"


@ANYWHERE
@BOTH
def test_a_program_that_asks_before_and_after_a_plan_gets_its_own_answers(way):
    ran = []

    def change():
        ran.append("change")
        return interrupt("in the plan?")

    def node(state):
        before = interrupt("before?")
        plan = Plan()
        step = plan.call(change)
        inside = plan.run(guard)[step]
        after = interrupt("after?")
        return {"messages": [("user", f"{before} {inside} {after}")]}

    guard = Guard(effects={"change": Write("x")})
    builder = StateGraph(MessagesState)
    builder.add_node("n", node)
    builder.add_edge(START, "n")
    graph = builder.compile(checkpointer=InMemorySaver())
    state = ask(way, graph, {"messages": []}, thread("t"))
    for word in ("one", "two", "three"):
        state = ask(way, graph, Command(resume=word), thread("t"))
    assert state["messages"][-1].content == "one two three"
    assert len(ran) == 2


@BOTH
@pytest.mark.usefixtures("refusing")
def test_where_it_is_not_known_what_had_run_no_change_runs_twice(way):
    ran = []

    def change():
        ran.append("change")

    def pay():
        return interrupt("?")

    def build():
        plan = Plan()
        plan.call(pay).after(plan.call(change))
        return plan

    guard = Guard(effects={"change": Write("x"), "pay": Write("y")})
    graph, results = in_a_node(way, build, guard)
    ask(way, graph, {"messages": []}, thread("t"))
    forget_tasks()  # the process is another one
    ask(way, graph, Command(resume="yes"), thread("t"))
    assert ran == ["change"]
    assert results[-1].outcome("change").fault.kind == "maybe_executed"


@pytest.mark.usefixtures("refusing")
def test_without_the_record_a_first_approval_is_asked_for_again(tools, guard, made):
    plan_tool = ibidem.plan_tool(tools, guard, writes=["cancel_order"])
    agent = agent_with(tools, plan_tool, FIND, CANCEL)
    ask("sync", agent, {"messages": [("user", "Cancel it.")]}, thread("t"))
    forget_tasks()
    state = ask("sync", agent, decide("batched", {"type": "approve"}), thread("t"))
    assert state["__interrupt__"]
    assert all(name != "cancel_order" for name, *_ in made)
    ask("sync", agent, decide("batched", {"type": "approve"}), thread("t"))
    assert made.count(("cancel_order", "1")) == 1


@ANYWHERE
@BOTH
def test_an_answer_to_a_step_that_does_not_ask_again_is_nobody_elses(way):
    """R19: what the step needs has failed meanwhile, and the program asks something else after the plan."""
    down = []

    def look():
        if down:
            raise ConnectionError("down")
        return 1

    def pay(x):
        return interrupt("pay?")

    def node(state):
        plan = Plan()
        plan.call(pay, x=plan.call(look))
        kind = plan.run(guard).outcome("pay").fault.kind
        return {"messages": [("user", f"{kind} {interrupt('and now?')}")]}

    guard = Guard(effects={"look": Read("x"), "pay": Write("account")})
    builder = StateGraph(MessagesState)
    builder.add_node("n", node)
    builder.add_edge(START, "n")
    graph = builder.compile(checkpointer=InMemorySaver())
    ask(way, graph, {"messages": []}, thread("t"))
    down.append(1)
    guard.touch("x")
    state = ask(way, graph, Command(resume="yes to paying"), thread("t"))
    (question,) = state["__interrupt__"]
    assert question.value == "and now?"
    state = ask(way, graph, Command(resume="go on"), thread("t"))
    assert state["messages"][-1].content == "upstream_failed go on"


@BOTH
def test_a_plan_tool_of_a_guard_that_is_off_admits_what_is_declared(way, tools, monkeypatch, made):
    monkeypatch.setenv("IBIDEM", "off")
    guard = Guard(effects={"get_order": Read("order:{order_id}"), "cancel_order": Write("order:{order_id}")})
    plan_tool = a_plan_tool(tools, guard)
    assert plan_tool._submissions.admitted == ["get_order"]
    status, content = answer(way, plan_tool, step("a", "get_order", args={"order_id": "1"}))
    assert (status, json.loads(content)["a"]["status"]) == ("success", "packed")
    assert answer(way, plan_tool, step("a", "get_order", args={"order_id": "1", "config": {}}))[0] == "error"


def test_a_middleware_that_cannot_be_found_is_said_to_be_so(tools, guard, made, monkeypatch):
    older = type("HumanInTheLoopMiddleware", (), {})
    module = "langchain.agents.middleware.human_in_the_loop"
    monkeypatch.setattr(f"{module}.HumanInTheLoopMiddleware", older)
    with pytest.raises(RuntimeError, match="approvals="):
        ibidem.plan_tool(tools, guard).invoke({"steps": [FIND]})
    assert made == []
    assert "user" in ibidem.plan_tool(tools, guard, approvals=[]).invoke({"steps": [FIND]})


@ANYWHERE
@BOTH
@pytest.mark.parametrize("words", [("YES", "NO"), ("NO", "YES")])
def test_of_two_plans_of_one_task_one_asks_and_the_other_is_to_be_submitted_again(way, words):
    """R19: a hand-built node runs both calls of a message in one task, where LangGraph has one list of answers."""
    paid = []

    @tool
    def pay(name: str) -> str:
        """Pay somebody."""
        answer = interrupt(f"pay {name}?")
        paid.append((name, answer))
        return f"{name}={answer}"

    guard = Guard(effects={"pay": Write("account:{name}")})
    plan_tool = ibidem.plan_tool([pay], guard, writes=["pay"], approvals=[])
    graph = node_graph(ToolNode([plan_tool]), checkpointer=InMemorySaver())
    message = ai(
        call("plan", {"steps": [step("p", "pay", args={"name": "A"})]}, "c1"),
        call("plan", {"steps": [step("p", "pay", args={"name": "B"})]}, "c2"),
    )
    decided = {"pay A?": words[0], "pay B?": words[1]}
    state = ask(way, graph, {"messages": [message]}, thread("t"))
    answered = []
    while "__interrupt__" in state:
        (question,) = state["__interrupt__"]
        answered.append(question.value[4])
        state = ask(way, graph, Command(resume=decided[question.value]), thread("t"))
    right = [("A", words[0]), ("B", words[1])]
    assert sorted(paid) == [each for each in right if each[0] in answered]
    told = {m.tool_call_id: json.loads(m.content)["p"] for m in state["messages"] if isinstance(m, ToolMessage)}
    for number, (name, word) in zip(("c1", "c2"), right, strict=True):
        assert told[number] == f"{name}={word}" if name in answered else "error" in told[number]
