"""The user beside the Claude program: what it asks goes to the desk, what the user says meanwhile goes to it."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from claude_agent_sdk import PermissionResultAllow, PermissionResultDeny, ToolPermissionContext

from treadle.session.v1 import event_pb2 as session
from worker.approvals import ALLOW, ALLOW_LIKE, foreseen, like
from worker.provider import Desk, Inbox, RequestMalformed
from worker.providers.claude_messages import Narrator
from worker.providers.claude_program import Program
from worker.providers.claude_tools import pending_call
from worker.text import plain

ASK = "AskUserQuestion"

Answer = PermissionResultAllow | PermissionResultDeny


class Permissions:
    """Answers the program's requests for permission. Questions come through it too, also where nothing else does."""

    def __init__(self, desk: Desk, narrator: Narrator) -> None:
        self._desk = desk
        self._narrator = narrator
        self._allowed: set[str] = set()

    async def __call__(self, name: str, given: dict[str, Any], context: ToolPermissionContext) -> Answer:
        """Wait for a person. One who is not there, or refuses, is a no; the program goes on with that."""
        try:
            if name == ASK:
                # To ask is all that it does.
                await self._narrator.allowed(context.tool_use_id or "")
                return await self._ask(given)
            return await self._approve(name, given, context)
        except RequestMalformed as error:
            return PermissionResultDeny(message=f"this cannot be asked: {error}")

    async def _approve(self, name: str, given: dict[str, Any], context: ToolPermissionContext) -> Answer:
        call = pending_call(context.tool_use_id or "", name, given, self._narrator.workspace)
        alike = like(call, given, self._narrator.workspace)
        if alike.key in self._allowed:
            await self._narrator.allowed(call.call_id)
            return PermissionResultAllow(updated_input=given)
        title = plain(context.title or f"{name}: {call.title}")
        request = session.ApprovalRequested(tool=call, title=title, options=alike.options())
        request.description = plain(context.decision_reason or "")
        request.changes.extend(await asyncio.to_thread(foreseen, call, given, self._narrator.workspace))
        await self._narrator.asked(call.call_id)
        resolved = await self._desk.approve(request)
        if resolved.outcome != session.REQUEST_OUTCOME_CHOSEN or resolved.option_id not in (ALLOW, ALLOW_LIKE):
            self._narrator.declined(call.call_id)
            return PermissionResultDeny(message=_refusal("the user did not allow this", resolved))
        if resolved.option_id == ALLOW_LIKE:
            self._allowed.add(alike.key)
        await self._narrator.allowed(call.call_id)
        return PermissionResultAllow(updated_input=given)

    async def _ask(self, given: dict[str, Any]) -> Answer:
        questions = [question for question in given.get("questions") or [] if isinstance(question, dict)]
        request = session.QuestionRequested()
        for number, question in enumerate(questions, 1):
            asked = request.questions.add(
                id=str(number), header=plain(question.get("header", "")), text=plain(question.get("question", ""))
            )
            asked.multi, asked.free_text = question.get("multiSelect") is True, True
            for position, option in enumerate(question.get("options") or [], 1):
                asked.options.add(id=str(position), label=plain(option.get("label", "")), description=plain(option.get("description", "")))
        resolved = await self._desk.ask(request)
        if resolved.outcome != session.REQUEST_OUTCOME_ANSWERED:
            return PermissionResultDeny(
                message=_refusal("the user did not answer; go on as you think best, and say what you assumed", resolved)
            )
        answers = {answer.question_id: answer for answer in resolved.answers}
        told = {
            question.get("question", ""): _words(asked, answers[asked.id])
            for question, asked in zip(questions, request.questions, strict=True)
            if asked.id in answers
        }
        return PermissionResultAllow(updated_input={**given, "answers": told})


async def steer(inbox: Inbox, program: Program, narrator: Narrator) -> None:
    """Hand over what the user says, one after the other: the program takes each at its next step, and says so. Never returns by itself
    but when the program does not listen any more."""
    while True:
        message = await inbox.next()
        taken = narrator.expect_input(message.input_id)
        if not await program.say(message.text, message_id=taken.message_id):
            return
        await taken.seen.wait()


def _words(question: session.Question, answer: session.Answer) -> str:
    labels = {option.id: option.label for option in question.options}
    chosen = [labels[option] for option in answer.option_ids if option in labels]
    return ", ".join([*chosen, answer.text] if answer.text else chosen)


def _refusal(sentence: str, resolved: session.RequestResolved) -> str:
    return f"{sentence}. The user says: {json.dumps(resolved.note)}" if resolved.note else sentence
