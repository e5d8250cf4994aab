"""Approvers that ask through LangGraph: by an interrupt of their own, or by LangChain's middleware."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, NamedTuple

from langchain_daytona_ws._approval import conversation
from langchain_daytona_ws._approval.interrupts import answer_to, may_have_answer
from langchain_daytona_ws.config import PermissionMode
from langchain_daytona_ws.permissions import (
    ASKS,
    AnswerUnusable,
    PermissionDecision,
    PermissionRequest,
    legible,
    needs_approval,
    plain_arguments,
)

ANSWERED_MAX = 10_000

_DECISIONS = ("approve", "edit", "reject", "respond")
_SHAPE = (
    'an answer to an interrupt is {"decisions": [{"type": "approve"}]}, with one decision: "approve", "reject" (may '
    'have a "message"), "respond" (has a "message"), or "edit" (has "edited_action": {"name": …, "args": {…}})'
)


class InterruptApprover:
    """Ask by interrupting the LangGraph graph that the tool runs in.

    The interrupt's value has the shape of LangChain's ``HITLRequest``, with one action; its description is the
    request's summary and diff. Resume with a ``HITLResponse`` of one decision,
    ``Command(resume={"decisions": [{"type": "approve"}]})``, or ``Command(resume={interrupt.id: …})`` where several are
    open. A `PermissionDecision` will do too, but for an edit, which LangGraph can't save. Anything else denies, and a
    warning in the log says why.

    The graph needs a checkpointer. A node that is resumed runs again from its start: calls that are done return what
    was recorded, and run nothing. An answer counts only for the call that it was asked about, in whichever order
    parallel calls come. ``allow_always`` is not taken: what it allows could then run in place of what was denied or
    edited before, when the node runs again.
    """

    def __call__(self, request: PermissionRequest, /) -> PermissionDecision:
        """Return the answer, or interrupt the graph.

        Raises:
            GraphInterrupt: There is no answer yet.
            AnswerUnusable: The answer is malformed, or there can be none here.
        """
        return _decision(answer_to(request, lambda: hitl_request(request), _portable), request)


class _Asked(NamedTuple):
    """A call of the model that a human was asked about."""

    thread: str
    namespace: str
    tool: str
    message: str
    call: str


class MiddlewareApprover:
    """Let LangChain's ``HumanInTheLoopMiddleware`` ask: allow what it has asked about, and nothing else.

    `WorkspaceSession.interrupt_on` of a session with this approver gives the mapping for the middleware, or for
    ``create_deep_agent``; the middleware asks before the tools run, and what the human refused or edited never comes
    here as it was. An answer counts for the very call in the model's very message, until a tool message answers that:
    not for a later call that looks the same, whatever its id. A call that no such middleware has put to a human in this
    process is denied: also after a crash between the answer and the call.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        # What a human has answered → the step that it ran in, once it has.
        self._answered: OrderedDict[_Asked | None, str | None] = OrderedDict()

    def __reduce__(self) -> tuple[type[MiddlewareApprover], tuple[()]]:
        """Pickle it without what was shown: where it is unpickled, nothing was."""
        return MiddlewareApprover, ()

    def interrupt_on(self, mode: PermissionMode, namespace: str) -> dict[str, Any]:
        """Return what the middleware must ask about for a permission mode.

        Args:
            mode: ``"ask"``, ``"edit"`` or ``"bypass"``, for which it is empty.
            namespace: The workspace, for the descriptions.
        """

        def when(request: Any) -> bool:
            call = request.tool_call
            return needs_approval(mode, call["name"], _action(call["name"], call["args"]))

        def description(call: Mapping[str, Any], state: object, runtime: object) -> str:
            about = _request(call, namespace)
            self._note(about)
            return _description(about)

        asked = [tool for tool, action in ASKS if needs_approval(mode, tool, action)]
        return {
            tool: {"allowed_decisions": list(_DECISIONS), "description": description, "when": when}
            for tool in dict.fromkeys(asked)
        }

    def __call__(self, request: PermissionRequest, /) -> PermissionDecision:
        """Allow what a human has answered through the middleware, and did not refuse.

        Raises:
            AnswerUnusable: There is no answer, or it was to another call, or in another step of the graph.
        """
        settings = _settings()
        call, step = _asked(request, settings), str(settings.get("checkpoint_ns") or "")
        with self._lock:
            # A node that runs again is the same step; what ran in another one was not approved twice.
            if call in self._answered and self._answered[call] in {None, step}:
                self._answered[call] = step
                return PermissionDecision.allow()
            edited = self._before_edit(call)
        if edited is not None:
            raise AnswerUnusable(
                f"the middleware asked about a call of {edited}, and an edit made it a call of {request.tool}, which "
                "is not what was shown: an edit may change the arguments only; reject the call instead, and say why"
            )
        raise AnswerUnusable(
            "no HumanInTheLoopMiddleware has asked about this call in this process: give the agent "
            "HumanInTheLoopMiddleware(interrupt_on=session.interrupt_on()), or the session another approver"
        )

    def _before_edit(self, call: _Asked | None) -> str | None:
        """Return the tool that a call was of when the middleware asked about it, if that was another one."""
        if call is None:
            return None
        # Before langchain 1.4 the message itself was changed by an edit.
        asked = (
            one.tool for one in self._answered if one is not None and one._replace(tool=call.tool) == call
        )
        tool = conversation.tool_of(conversation.around(_settings()), call.call) or call.tool
        tool = next(asked, tool) if tool == call.tool else tool
        return None if tool == call.tool else legible.name(tool, 62)

    def _note(self, request: PermissionRequest) -> None:
        """Note what the middleware is about to ask: when the graph goes on, it asks again, and there is an answer."""
        settings = _settings()
        call = _asked(request, settings)
        with self._lock:
            self._answered.pop(call, None)
            if call is not None and may_have_answer(settings):
                self._answered[call] = None
            while len(self._answered) > ANSWERED_MAX:
                self._answered.popitem(last=False)


def hitl_request(request: PermissionRequest) -> dict[str, Any]:
    """Put a request into the shape of LangChain's ``HITLRequest``, as a call of the tool that the model called."""
    name = request.tool if request.called is None else request.called.name
    arguments = request.arguments if request.called is None else request.called.arguments
    action = {"name": name, "args": plain_arguments(arguments), "description": _description(request)}
    review = {"action_name": name, "allowed_decisions": list(_DECISIONS)}
    return {"action_requests": [action], "review_configs": [review]}


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
                "allow_always can't be answered to an interrupt: when the node runs again, it would allow what was "
                "denied or edited before; approve the call, or use a callback as approver"
            )
    raise _malformed(
        f"got {_kind(decision)}" if kind is None else "the decision is another, or lacks its message"
    )


def _edit(action: object, request: PermissionRequest) -> PermissionDecision:
    arguments = action.get("args") if isinstance(action, Mapping) else None
    if not isinstance(action, Mapping) or not isinstance(arguments, Mapping):
        raise _malformed("the edited action has no args")
    name, called = action.get("name", ""), request.called
    if called is not None and name == called.name:
        return PermissionDecision.allow_edited(_kept(request, called.translated(arguments)))
    if name not in {None, request.tool}:
        known = repr(request.tool) if called is None else f"{called.name!r} or {request.tool!r}"
        raise AnswerUnusable(f"an edit can't change the tool: edited_action's name must be {known}")
    return PermissionDecision.allow_edited(arguments)


def _kept(request: PermissionRequest, edited: Mapping[str, object]) -> dict[str, object]:
    """Add the arguments of the request that the tool which was called has no name for."""
    called = request.called
    shown = set() if called is None else set(called.translated(called.arguments))
    return {**{name: value for name, value in request.arguments.items() if name not in shown}, **edited}


def _portable(answer: object) -> object:
    """Write a `PermissionDecision` as a checkpoint can hold it."""
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
            # An edit through this class is of the same tool: it names none.
            edited = plain_arguments(answer.arguments or {})
            decision = {"type": "edit", "edited_action": {"name": None, "args": edited}}
        case "allow_always":
            decision = {"type": "allow_always"}
    return {"decisions": [decision]}


def _malformed(found: str) -> AnswerUnusable:
    return AnswerUnusable(f"{_SHAPE}; {found}")


def _kind(value: object) -> str:
    return f"type {type(value).__qualname__}"


def _count(decisions: object) -> str:
    return f"{len(decisions)} decisions" if isinstance(decisions, (list, tuple)) else _kind(decisions)


def _settings() -> Mapping[str, Any]:
    from langchain_core.runnables.config import ensure_config

    return ensure_config().get("configurable", {})


def _asked(request: PermissionRequest, settings: Mapping[str, Any]) -> _Asked | None:
    """Name a call that stands in a message and has no result yet; None for any other."""
    call_id = str(request.tool_call_id or "")
    message = conversation.open_message(conversation.around(settings), call_id)
    if not message:
        return None
    return _Asked(str(settings.get("thread_id") or ""), request.namespace, request.tool, message, call_id)


def _action(tool: str, arguments: Mapping[str, Any]) -> str:
    return "run" if tool == "bash" else str(arguments.get("action" if tool == "bash_job" else "command"))


def _request(call: Mapping[str, Any], namespace: str) -> PermissionRequest:
    """Describe a call whose arguments nobody has checked yet."""
    tool, given = str(call["name"]), dict(call["args"])
    about: dict[str, Any] = {"namespace": namespace, "tool_call_id": call.get("id")}
    if tool == "bash":
        return PermissionRequest.for_bash(str(given.get("command", "")), arguments=given, **about)
    if tool == "bash_job":
        return PermissionRequest.for_job(_action(tool, given), given, **about)
    return PermissionRequest.for_file(_action(tool, given), given, **about)
