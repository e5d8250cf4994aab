"""Approvers that ask through LangGraph: by an interrupt, or through LangChain's middleware."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from langchain_daytona_ws._approval.interrupts import answer_to, may_have_answer
from langchain_daytona_ws._core.call_key import thread_of
from langchain_daytona_ws._session import graph_messages
from langchain_daytona_ws.config import PermissionMode
from langchain_daytona_ws.errors import ConfigError
from langchain_daytona_ws.permissions import (
    ASKS,
    AnswerUnusable,
    Approver,
    PermissionDecision,
    PermissionRequest,
    argument_text,
    legible,
    needs_approval,
    plain_arguments,
)

APPROVED_MAX = 10_000

_DECISIONS = ("approve", "edit", "reject", "respond")
_ANSWER_FORMAT = (
    'an answer to an interrupt is {"decisions": [{"type": "approve"}]}, with one decision: "approve", "reject" (may '
    'have a "message"), "respond" (has a "message"), or "edit" (has "edited_action": {"name": …, "args": {…}})'
)


class InterruptApprover:
    """Ask for approval by interrupting the LangGraph graph that runs the tool.

    The interrupt's value is a LangChain ``HITLRequest`` with one action. The action's description is the request's
    summary and diff. Resume with a ``HITLResponse`` of one decision, such as
    ``Command(resume={"decisions": [{"type": "approve"}]})``. If several interrupts are open, use
    ``Command(resume={interrupt.id: …})``. A `PermissionDecision` is accepted too, except ``allow_always``.
    ``allow_edited`` needs the form with ``interrupt.id``, because LangGraph can't save it in the other form. Any other
    answer denies the call, and a warning in the log gives the reason.

    The graph needs a checkpointer. A resumed node runs again from its start: finished commands and changes return their
    recorded results, and reads are repeated. Each answer applies only to its own call, also if several calls run in
    parallel. ``allow_always`` is refused, because in the repeated run it could allow a call that was denied or edited
    before.
    """

    def __call__(self, request: PermissionRequest, /) -> PermissionDecision:
        """Return the answer, or interrupt the graph.

        Raises:
            GraphInterrupt: There is no answer yet.
            AnswerUnusable: The answer is malformed or can't be matched to a call, the graph can't be interrupted here,
                or the checkpoint can't be read or written.
        """
        return _decision(answer_to(request, lambda: hitl_request(request), _serializable), request)


class _ReviewedCall(NamedTuple):
    """Identifies a tool call that a human reviews."""

    thread: str
    namespace: str
    tool: str
    message_id: str
    call_id: str


class MiddlewareApprover:
    """Allow the calls that LangChain's ``HumanInTheLoopMiddleware`` has asked a human about; deny all others.

    Create the session with this approver, and pass the result of `WorkspaceSession.interrupt_on` to the middleware.
    With Deep Agents, pass the result of `WorkspaceBackend.interrupt_on` to ``create_deep_agent``. The middleware asks
    before the tools run. It answers the calls that the human refused, and changes the calls that the human edited. An
    approval applies to one call in one message of the model, until a tool message answers the call. A later identical
    call needs a new approval, even if it has the same id. A call is denied if no middleware in this process has asked
    about it, for example because the process was restarted after the approval.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        # Approved call → the graph step in which it ran; None until it runs.
        self._approved: OrderedDict[_ReviewedCall | None, str | None] = OrderedDict()

    def __reduce__(self) -> tuple[type[MiddlewareApprover], tuple[()]]:
        """Pickle the approver without its approvals: they are valid in this process only."""
        return MiddlewareApprover, ()

    def interrupt_on(self, mode: PermissionMode, namespace: Callable[[], str]) -> dict[str, Any]:
        """Return the ``interrupt_on`` mapping of the middleware for a permission mode.

        Args:
            mode: ``"ask"``, ``"edit"`` or ``"bypass"``; the mapping for ``"bypass"`` is empty.
            namespace: Returns the name of the current run's workspace.
        """

        def needs(call: Mapping[str, Any]) -> bool:
            return needs_approval(mode, call["name"], _action(call["name"], call["args"]))

        tools = [tool for tool, action in ASKS if needs_approval(mode, tool, action)]
        return self.reviewing(dict.fromkeys(tools), needs, lambda call: _request(call, namespace()))

    def reviewing(
        self,
        tools: Iterable[str],
        needs: Callable[[Mapping[str, Any]], bool],
        build: Callable[[Mapping[str, Any]], PermissionRequest],
    ) -> dict[str, Any]:
        """Return the ``interrupt_on`` mapping for some tools.

        Args:
            tools: Names of the tools.
            needs: Returns whether a call of one of the tools needs approval.
            build: Builds the request of a call. The call's arguments are not validated yet.
        """

        def description(call: Mapping[str, Any], state: object, runtime: object) -> str:
            request = build(call)
            self._record(request)
            return _description(request)

        def when(request: Any) -> bool:
            return needs(request.tool_call)

        return {
            tool: {"allowed_decisions": list(_DECISIONS), "description": description, "when": when}
            for tool in tools
        }

    def __call__(self, request: PermissionRequest, /) -> PermissionDecision:
        """Allow a call that a human has approved through the middleware.

        Raises:
            AnswerUnusable: There is no approval for this call in this step of the graph.
        """
        settings = _settings()
        call, step = _reviewed_call(request, settings), str(settings.get("checkpoint_ns") or "")
        with self._lock:
            # An approval is valid for one step. A node that runs again has the step of its first run.
            if call in self._approved and self._approved[call] in {None, step}:
                self._approved[call] = step
                return PermissionDecision.allow()
            original = self._tool_before_edit(call)
        if original is not None:
            raise AnswerUnusable(
                f"the middleware asked about a call of {original}, and an edit changed it to a call of "
                f"{_called_name(request)}, which the human was not asked about: an edit may change the arguments only; "
                "to use another tool, reject the call with a reason"
            )
        remedy = (
            "HumanInTheLoopMiddleware(interrupt_on=session.interrupt_on()), and its tools their default names"
            if request.called is None
            else "and each subagent interrupt_on=backend.interrupt_on() and middleware=[backend.run_once]"
        )
        raise AnswerUnusable(
            "no HumanInTheLoopMiddleware has asked about this call in this process: give the agent "
            f"{remedy}, or the session another approver"
        )

    def _tool_before_edit(self, call: _ReviewedCall | None) -> str | None:
        """Return the tool that the middleware asked about, if an edit changed the tool; else None."""
        if call is None:
            return None
        reviewed = (
            known.tool
            for known in self._approved
            if known is not None and known.tool != call.tool and known._replace(tool=call.tool) == call
        )
        tool = next(reviewed, None)
        return None if tool is None else legible.name(tool, 62)

    def _record(self, request: PermissionRequest) -> None:
        """Record a call that the middleware asks about, if a human may have answered.

        The middleware builds the description twice: before the interrupt, and again when the graph resumes with the
        answer.
        """
        settings = _settings()
        call = _reviewed_call(request, settings)
        with self._lock:
            self._approved.pop(call, None)
            if call is not None and may_have_answer(settings):
                self._approved[call] = None
            while len(self._approved) > APPROVED_MAX:
                self._approved.popitem(last=False)


def middleware_approver(approver: Approver | None) -> MiddlewareApprover:
    if not isinstance(approver, MiddlewareApprover):
        other = "none" if approver is None else type(approver).__qualname__
        raise ConfigError(
            "interrupt_on() needs a session with approver=MiddlewareApprover(), which runs the calls that "
            f"the middleware has asked about; this one has {other}"
        )
    return approver


def hitl_request(request: PermissionRequest) -> dict[str, Any]:
    """Return a request as a LangChain ``HITLRequest``, under the name of the tool that the model called."""
    name = _called_name(request)
    arguments = request.arguments if request.called is None else request.called.arguments
    action = {"name": name, "args": plain_arguments(arguments), "description": _description(request)}
    review = {"action_name": name, "allowed_decisions": list(_DECISIONS)}
    return {"action_requests": [action], "review_configs": [review]}


def _called_name(request: PermissionRequest) -> str:
    return request.tool if request.called is None else request.called.name


def _description(request: PermissionRequest) -> str:
    return request.summary if request.diff is None else f"{request.summary}\n\n{request.diff}"


def _decision(answer: object, request: PermissionRequest) -> PermissionDecision:
    decisions = answer.get("decisions") if isinstance(answer, Mapping) else None
    if not isinstance(decisions, (list, tuple)) or len(decisions) != 1:
        raise _malformed(f"got {_kind(answer)}" if decisions is None else f"got {_count(decisions)}")
    decision = decisions[0]
    kind = decision.get("type") if isinstance(decision, Mapping) else None
    message = decision.get("message") if isinstance(decision, Mapping) else None
    if message is not None and not isinstance(message, str):
        raise _malformed(f"the message is of {_kind(message)}")
    match kind:
        case "approve":
            return PermissionDecision.allow()
        case "reject":
            return PermissionDecision.deny(message or "")
        case "respond" if message is not None:
            return PermissionDecision.respond(message)
        case "edit":
            return _edit(decision.get("edited_action"), request)
        case "allow_always":
            raise AnswerUnusable(
                "an interrupt can't be answered with allow_always: when the node runs again, it would allow calls that "
                "were denied or edited before; approve the call, or use a callback as approver"
            )
    raise _malformed(
        f"got {_kind(decision)}"
        if kind is None
        else "the decision has an unknown type, or its message is missing"
    )


def _edit(action: object, request: PermissionRequest) -> PermissionDecision:
    arguments = action.get("args") if isinstance(action, Mapping) else None
    if not isinstance(action, Mapping) or not isinstance(arguments, Mapping):
        raise _malformed("the edited action has no args")
    name, called = action.get("name", ""), request.called
    if called is not None and name == called.name:
        edited = {**_hidden_arguments(request), **called.translated(arguments)}
        return PermissionDecision.allow_edited(edited)
    if name not in (None, request.tool):  # a list: the name may be unhashable
        known = repr(request.tool) if called is None else f"{called.name!r} or {request.tool!r}"
        raise AnswerUnusable(f"an edit can't change the tool: edited_action's name must be {known}")
    return PermissionDecision.allow_edited(arguments)


def _hidden_arguments(request: PermissionRequest) -> dict[str, object]:
    """Return the arguments of the request that the called tool does not have."""
    called = request.called
    shown = set() if called is None else set(called.translated(called.arguments))
    return {name: value for name, value in request.arguments.items() if name not in shown}


def _serializable(answer: object) -> object:
    """Convert a `PermissionDecision` to plain data that a checkpoint can hold; return other answers unchanged."""
    if not isinstance(answer, PermissionDecision):
        return answer
    decision: dict[str, object]
    match answer.kind:
        case "allow":
            decision = {"type": "approve"}
        case "deny":
            decision = {"type": "reject", "message": answer.reason}
        case "respond":
            decision = {"type": "respond", "message": answer.message}
        case "allow_edited":
            # `PermissionDecision.allow_edited` can't change the tool, and has no name for it.
            edited = plain_arguments(answer.arguments or {})
            decision = {"type": "edit", "edited_action": {"name": None, "args": edited}}
        case "allow_always":
            decision = {"type": "allow_always"}
    return {"decisions": [decision]}


def _malformed(problem: str) -> AnswerUnusable:
    return AnswerUnusable(f"{_ANSWER_FORMAT}; {problem}")


def _kind(value: object) -> str:
    return f"type {type(value).__qualname__}"


def _count(decisions: object) -> str:
    return f"{len(decisions)} decisions" if isinstance(decisions, (list, tuple)) else _kind(decisions)


def _settings() -> Mapping[str, Any]:
    from langchain_core.runnables.config import ensure_config

    return ensure_config().get("configurable", {})


def _reviewed_call(request: PermissionRequest, settings: Mapping[str, Any]) -> _ReviewedCall | None:
    """Return the identity of a call that has no result yet; None if the conversation has no such call."""
    call_id = str(request.tool_call_id or "")
    message = graph_messages.open_message(graph_messages.messages_of(settings), call_id)
    if not message:
        return None
    return _ReviewedCall(
        thread_of({"configurable": settings}) or "",
        request.namespace,
        _called_name(request),
        message,
        call_id,
    )


def _action(tool: str, arguments: Mapping[str, Any]) -> str:
    fixed = {"bash": "run", "preview_url": "open"}.get(tool)
    return fixed or argument_text(arguments.get("action"))


def _request(call: Mapping[str, Any], namespace: str) -> PermissionRequest:
    """Build the request of a call whose arguments are not validated yet."""
    tool, arguments = str(call["name"]), dict(call["args"])
    origin: dict[str, Any] = {"namespace": namespace, "tool_call_id": call.get("id")}
    if tool == "bash":
        return PermissionRequest.for_bash(
            argument_text(arguments.get("command")), arguments=arguments, **origin
        )
    if tool == "bash_job":
        return PermissionRequest.for_job(_action(tool, arguments), arguments, **origin)
    if tool == "preview_url":
        return PermissionRequest.for_preview(arguments, **origin)
    return PermissionRequest.for_file(_action(tool, arguments), arguments, **origin)
