// What a frontend does: connect-web with the generated TypeScript, and server-sent events by fetch. The tests call these functions by name.

import { create, fromBinary, fromJson, toBinary, type JsonValue } from "@bufbuild/protobuf";
import { Code, ConnectError, createClient, type Client } from "@connectrpc/connect";
import { createGrpcWebTransport } from "@connectrpc/connect-web";
import { BadRequestSchema, ErrorInfoSchema } from "../../../generated/ts/src/google/rpc/error_details_pb.js";
import { EventSchema, type Event } from "../../../generated/ts/src/treadle/session/v1/event_pb.js";
import { SessionService } from "../../../generated/ts/src/treadle/session/v1/session_service_pb.js";

type Door = { gateway: string; key: string };
type Emit = (value: unknown) => void;
type Ending = { code: string; message: string; reason?: string; metadata?: Record<string, string>; fields?: string[] };

function client({ gateway, key }: Door): Client<typeof SessionService> {
  const transport = createGrpcWebTransport({
    baseUrl: gateway,
    interceptors: [
      (next) => (request) => {
        request.header.set("authorization", `Bearer ${key}`);
        return next(request);
      },
    ],
  });
  return createClient(SessionService, transport);
}

// An event as its bytes, in base 64: nothing of it is lost on its way to the test.
function packed(event: Event): string {
  return btoa(String.fromCharCode(...toBinary(EventSchema, event)));
}

function ending(error: unknown): Ending {
  const failure = ConnectError.from(error);
  const info = failure.findDetails(ErrorInfoSchema)[0];
  const fields = failure.findDetails(BadRequestSchema).flatMap((each) => each.fieldViolations.map((violation) => violation.field));
  return { code: Code[failure.code], message: failure.rawMessage, reason: info?.reason, metadata: info?.metadata, fields };
}

const COMPLETE: Ending = { code: "complete", message: "" };

// One unary call.
async function list(door: Door): Promise<unknown> {
  try {
    const answer = await client(door).listSessions({ pageSize: 5 });
    return { sessions: answer.sessions.map((session) => session.sessionId) };
  } catch (error) {
    return ending(error);
  }
}

// Follow a session. `leaveAfter`: abort once so many events are here. `timeoutMs`: the client's own limit.
async function resume(
  { door, sessionId, afterSeq = 0, leaveAfter = 0, timeoutMs }: ResumeOptions,
  emit: Emit,
): Promise<{ events: string[]; ending: Ending }> {
  const events: string[] = [];
  const leave = new AbortController();
  let closed = false;
  try {
    const frames = client(door).resume({ sessionId, afterSeq: BigInt(afterSeq) }, { signal: leave.signal, timeoutMs });
    for await (const { frame } of frames) {
      closed = frame.case === "closed";
      for (const event of frame.case === "events" ? frame.value.events : []) {
        events.push(packed(event));
        emit({ seq: Number(event.seq), kind: event.body.case });
        if (events.length === leaveAfter) {
          leave.abort();
          break;
        }
      }
    }
    return { events, ending: closed ? COMPLETE : { code: "Unknown", message: "no closing frame" } };
  } catch (error) {
    return { events, ending: ending(error) };
  }
}
type ResumeOptions = { door: Door; sessionId: string; afterSeq?: number; leaveAfter?: number; timeoutMs?: number };

// Start a turn and follow it.
async function execute({ door, request }: { door: Door; request: JsonValue }, emit: Emit): Promise<Ending> {
  try {
    for await (const { frame } of client(door).executeSession(request as object)) {
      if (frame.case === "started") emit({ started: frame.value.sessionId });
      for (const event of frame.case === "events" ? frame.value.events : []) {
        emit({ seq: Number(event.seq), kind: event.body.case, text: event.body.case === "message" ? event.body.value.parts[0]?.content.value : "" });
      }
    }
    return COMPLETE;
  } catch (error) {
    return ending(error);
  }
}

// Server-sent events by fetch, with the key in a header.
async function sse(
  { door, path, lastEventId = "", leaveAfter = 0 }: { door: Door; path: string; lastEventId?: string; leaveAfter?: number },
  emit: Emit,
): Promise<{ events: string[]; last: string; status: number }> {
  const headers: Record<string, string> = { authorization: `Bearer ${door.key}` };
  if (lastEventId) headers["last-event-id"] = lastEventId;
  const leave = new AbortController();
  const answer = await fetch(door.gateway + path, { headers, signal: leave.signal });
  const reader = answer.body!.pipeThrough(new TextDecoderStream()).getReader();
  const events: string[] = [];
  let text = "";
  let last = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return { events, last, status: answer.status };
    const blocks = (text + value).split("\n\n");
    text = blocks.pop()!;
    for (const block of blocks) {
      const fields = new Map(block.split("\n").map((line) => line.split(/: (.*)/s, 2) as [string, string]));
      last = fields.get("event") ?? last;
      if (!fields.has("id")) continue;
      events.push(packed(fromJson(EventSchema, JSON.parse(fields.get("data")!))));
      emit({ seq: Number(fields.get("id")), kind: fields.get("event") });
      if (events.length === leaveAfter) {
        leave.abort();
        return { events, last, status: answer.status };
      }
    }
  }
}

// The browser's own EventSource, with a ticket in its URL. It comes back by itself, behind the last event that it has: nothing here resumes.
async function eventSource(
  { door, path, sessionId }: { door: Door; path: string; sessionId?: string },
  emit: Emit,
): Promise<{ events: string[]; opened: number; ending: string }> {
  const ticket = sessionId ? (await ticketFor({ door, sessionId })).ticket : "";
  return new Promise((resolve) => {
    const events: string[] = [];
    let opened = 0;
    const source = new EventSource(`${door.gateway}${path}${ticket && `&ticket=${ticket}`}`);
    const end = (ending: string) => (source.close(), resolve({ events, opened, ending }));
    const read = ({ type, data }: MessageEvent<string>) => {
      const event = fromJson(EventSchema, JSON.parse(data));
      events.push(packed(event));
      emit({ seq: Number(event.seq), kind: type });
    };
    source.onopen = () => opened++;
    source.addEventListener("closed", () => end("closed"));
    // `error` is a kind of event, the last word of a stream, and what the browser itself calls a lost connection.
    source.addEventListener("error", (event) => {
      if (source.readyState === EventSource.CLOSED) end("refused");
      else if (event instanceof MessageEvent && "seq" in JSON.parse(event.data)) read(event);
    });
    const kinds = EventSchema.oneofs.flatMap((each) => each.fields.map((field) => field.name));
    for (const kind of kinds.filter((each) => each !== "error")) source.addEventListener(kind, read);
  });
}

async function ticketFor({ door, sessionId }: { door: Door; sessionId: string }): Promise<{ ticket: string; expiresAt: string }> {
  const { gateway, key } = door;
  const headers = { authorization: `Bearer ${key}`, "content-type": "application/json" };
  const answer = await fetch(`${gateway}/v1/sessions/${sessionId}:streamTicket`, { method: "POST", headers, body: "{}" });
  return await answer.json();
}

// What a page that may not call learns.
async function plain({ url, headers = {} }: { url: string; headers?: Record<string, string> }): Promise<string> {
  try {
    const answer = await fetch(url, { headers });
    return `${answer.status}`;
  } catch (error) {
    return (error as Error).name;
  }
}

// That the generated code holds together: an event through bytes and back.
function roundTrip(): boolean {
  const event = create(EventSchema, { seq: 7n, body: { case: "error", value: { code: "X" } } });
  return fromBinary(EventSchema, toBinary(EventSchema, event)).body.case === "error";
}

Object.assign(window, { treadle: { list, resume, execute, sse, eventSource, ticketFor, plain, roundTrip } });
