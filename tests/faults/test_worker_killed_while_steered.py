"""The one moment in which an input may reach an agent twice: its worker is lost when it has it, and before the server heard that."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.git_server import git_server as serving
from support.treadle import events_of, in_process, recording, settings_for

from server.embedded.postgres_home import DatabaseUrls
from server.workers.slot import slots
from treadle.session.v1 import event_pb2
from treadle.session.v1 import session_service_pb2 as pb
from worker.descendants import kill_tree

LISTENING = recording({"run": "cp later.jsonl r.jsonl"}, {"say": "listening"}, {"listen": 1}, {"say": "heard {input}"}, {"run": "sleep 60"})
LATER = recording({"say": "turn {turn}: {prompt}"})


@pytest.mark.parametrize("moment", ["give.before", "give.after"])
async def test_what_a_lost_agent_may_have_heard_is_the_next_turn(
    moment: str, database: DatabaseUrls, server_data_dir: Path, tmp_path: Path
) -> None:
    killed: list[int] = []

    def mark(point: str) -> None:
        if point == moment and not killed:
            (process,) = [slot.process() for slot in slots(server_data_dir / "workers")]
            assert process is not None
            killed.append(process[0])
            kill_tree(process[0])

    with serving(tmp_path / "host") as git_server:
        git_server.create("acme/app", {"r.jsonl": LISTENING, "later.jsonl": LATER})
        async with in_process(settings_for(database, server_data_dir, git_server), mark=mark) as (_, client):
            url = f"{git_server.url}/acme/app.git"
            stream = client.execute(repository_url=url, prompt="go", provider="replay", model="r.jsonl")
            session_id = ""
            async for frame in stream:
                for event in frame.events.events:
                    if event.HasField("message"):
                        session_id = event.session_id
                        steering = pb.SendInputRequest(
                            session_id=session_id, text="use tabs", delivery=event_pb2.INPUT_DELIVERY_STEER, request_id="steer"
                        )
                        steered = (await client.call("SendInput", steering)).input
            assert killed, "the moment did not come"
            listed = (await client.call("ListInputs", pb.ListInputsRequest(session_id=session_id))).inputs
            # Where the agent's own word that it has it was under way already, that word may arrive.
            heard = not listed
            assert [each.input_id for each in listed] == [steered.input_id][heard:]
            assert not (heard and moment == "give.before")
            await client.call("SendInput", pb.SendInputRequest(session_id=session_id, text="and go on"))
            await events_of(client.resume(session_id))
            events = await client.log(session_id)
    ends = [event.turn_completed.code for event in events if event.HasField("turn_completed")]
    assert ends == [event_pb2.TURN_CODE_WORKER_LOST, *[event_pb2.TURN_CODE_UNSPECIFIED] * (1 if heard else 2)]
    said = [event.message.parts[0].text for event in events if event.HasField("message")]
    # The lost agent's files are kept, so the next turn plays what it left.
    later = ["turn 2: and go on"] if heard else ["turn 2: use tabs", "turn 3: and go on"]
    assert [text for text in said if not text.startswith("heard")] == ["listening", *later]
    told = [event.user_input.status for event in events if event.user_input.input_id == steered.input_id]
    assert told == [event_pb2.INPUT_STATUS_QUEUED, event_pb2.INPUT_STATUS_DELIVERED]
