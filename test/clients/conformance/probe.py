"""Probes a Parley service as grpcio sees it. Its argument names a case; prints what was seen as a line of JSON."""

import json
import os
import sys
import threading
import time
from pathlib import Path

import grpc
from google.rpc.error_details_pb2 import ErrorInfo
from grpc_status import rpc_status

sys.path.append(str(Path(__file__).parents[3] / "examples/python/gen"))
from parley.chat.v1 import chat_service_pb2 as pb
from parley.chat.v1.chat_service_pb2_grpc import ChatServiceStub
from parley.chat.v1.session_service_pb2 import CreateSessionRequest, DeleteSessionRequest, ListMessagesRequest
from parley.chat.v1.session_service_pb2_grpc import SessionServiceStub
from parley.chat.v1.turn_pb2 import FinishReason, TurnState

TIMEOUT_S = 150

# Makes a call again that finds the service too busy, as gRPC has it (gRFC A6).
PATIENCE = {
    "methodConfig": [
        {
            "name": [{"service": "parley.chat.v1.ChatService"}],
            "retryPolicy": {
                "maxAttempts": 5,
                "initialBackoff": "0.5s",
                "maxBackoff": "5s",
                "backoffMultiplier": 2,
                "retryableStatusCodes": ["UNAVAILABLE"],
            },
        }
    ]
}


def connect(*options: tuple[str, object], **more: object) -> grpc.Channel:
    # Channels of a process share connections, which each case is to have for itself.
    own = ("grpc.use_local_subchannel_pool", 1)
    return grpc.insecure_channel(os.environ["PARLEY_URL"].removeprefix("http://"), (own, *options), **more)


def headers_and_trailers() -> dict:
    chat = ChatServiceStub(connect())
    own = (("x-request-id", "probe-1"),)
    request = pb.ChatRequest(message="hello", user_id="u1")
    _, call = chat.Chat.with_call(request, timeout=TIMEOUT_S, metadata=own)
    try:
        chat.GetTurn(pb.GetTurnRequest(turn_id="none"), timeout=TIMEOUT_S, metadata=own)
    except grpc.RpcError as error:
        metadata = dict([*error.initial_metadata(), *error.trailing_metadata()])
        return {
            **refusal(error),
            "answered_request_id": dict(call.initial_metadata()).get("x-request-id"),
            "refused_request_id": metadata.get("x-request-id"),
        }


def deadline() -> dict:
    chat = ChatServiceStub(connect())
    events = chat.StreamChat(request("stall"), timeout=1)
    turn_id = started(events)
    code = end_of(events)
    state = TurnState.Name(turn(chat, turn_id).state)
    chat.CancelTurn(pb.CancelTurnRequest(turn_id=turn_id), timeout=TIMEOUT_S)
    return {"code": code, "state": state}


def cancellation() -> dict:
    chat = ChatServiceStub(connect())
    events = chat.StreamChat(ending("stall"), timeout=TIMEOUT_S)
    turn_id = started(events)
    events.cancel()
    code = end_of(events)
    while (is_now := turn(chat, turn_id)).state != TurnState.TURN_STATE_FINISHED:
        time.sleep(0.02)
    return {"code": code, "finish_reason": FinishReason.Name(is_now.finish_reason)}


def compression() -> dict:
    chat = ChatServiceStub(connect(compression=grpc.Compression.Gzip))
    text = "compress-me-" * 800
    reply = chat.Chat(pb.ChatRequest(message=text, user_id="u1"), timeout=TIMEOUT_S)
    events = chat.StreamChat(pb.StreamChatRequest(message=text, user_id="u1"), timeout=TIMEOUT_S)
    streamed = "".join(event.text_delta.text for event in events)
    try:
        chat.GetTurn(pb.GetTurnRequest(turn_id="none"), timeout=TIMEOUT_S)
    except grpc.RpcError as error:
        return {"replied": text in reply.response, "streamed": text in streamed, "refusal": error.code().name}


def large_messages() -> dict:
    chat = ChatServiceStub(connect())
    text = "🦜" * 10_000
    reply = chat.Chat(pb.ChatRequest(message=text, user_id="u1", agent_team="roomy"), timeout=TIMEOUT_S)
    try:
        chat.Chat(pb.ChatRequest(message="x" * 1_048_576, user_id="u1"), timeout=TIMEOUT_S)
    except grpc.RpcError as error:
        # The connection is as good as before.
        chat.Chat(pb.ChatRequest(message="hello", user_id="u1"), timeout=TIMEOUT_S)
        return {**refusal(error), "replied": text in reply.response, "after": "OK"}


def large_pages() -> dict:
    """Reads the longest pages of a session of many long messages. grpcio, as others, takes 4 MiB at most."""
    sessions = SessionServiceStub(connect())
    messages = pages = 0
    request = ListMessagesRequest(session_id=os.environ["LONG_SESSION"], page_size=200)
    while pages == 0 or request.page_token != "":
        page = sessions.ListMessages(request, timeout=TIMEOUT_S)
        pages += 1
        messages += len(page.messages)
        request.page_token = page.next_page_token
    return {"messages": messages, "more_than_a_page": pages > 1}


def empty_messages() -> dict:
    channel = connect()
    # Health's messages are so few that they need no generated code: an empty request, and field 1, the status.
    check = channel.unary_unary("/grpc.health.v1.Health/Check")
    health = check(b"", timeout=TIMEOUT_S)
    sessions = SessionServiceStub(channel)
    created = sessions.CreateSession(CreateSessionRequest(user_id="u1"), timeout=TIMEOUT_S)
    deleted = sessions.DeleteSession(DeleteSessionRequest(session_id=created.session.session_id), timeout=TIMEOUT_S)
    try:
        ChatServiceStub(channel).Chat(pb.ChatRequest(), timeout=TIMEOUT_S)
    except grpc.RpcError as error:
        serving = "SERVING" if health == b"\x08\x01" else repr(health)
        return {**refusal(error), "health": serving, "deleted_bytes": deleted.ByteSize()}


def half_closed_streams() -> dict:
    channel = connect()
    # Both ways: the client says that it has no more to ask, and reads on. The request is ServerReflectionRequest with
    # field 7, list_services.
    reflect = channel.stream_stream("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo")
    answers = list(reflect(iter([b"\x3a\x00"] * 3), timeout=TIMEOUT_S))
    # One way: a request counts when it is at its end, not before, however long another call on its connection takes.
    stream = channel.stream_stream(
        "/parley.chat.v1.ChatService/StreamChat",
        request_serializer=pb.StreamChatRequest.SerializeToString,
        response_deserializer=pb.StreamChatResponse.FromString,
    )
    whole = threading.Event()

    def requests():
        yield request("")
        whole.wait()

    events = stream(requests(), timeout=TIMEOUT_S)
    received = []
    reader = threading.Thread(target=lambda: received.extend(events))
    reader.start()
    ChatServiceStub(channel).Chat(pb.ChatRequest(message="hello", user_id="u1"), timeout=TIMEOUT_S)
    waits = received == []
    whole.set()
    reader.join()
    begun = received[0].turn_started.turn_id != ""
    return {"answers": len(answers), "ended": True, "waits": waits, "then_turn_begun": begun}


def reset_streams() -> dict:
    """Breaks calls off at every point, and looks whether a call beside them on the connection lives on."""
    channel = connect()
    chat = ChatServiceStub(channel)
    beside = chat.StreamChat(ending("stall"), timeout=TIMEOUT_S)
    turn_id = started(beside)
    for round in range(600):
        events = chat.StreamChat(ending("stall"), timeout=TIMEOUT_S)
        if round % 3 == 0:
            next(events)
        events.cancel()
    state = TurnState.Name(turn(chat, turn_id).state)
    chat.CancelTurn(pb.CancelTurnRequest(turn_id=turn_id), timeout=TIMEOUT_S)
    return {"state_beside": state, "end_beside": end_of(beside)}


def keepalive_pings() -> dict:
    """Has a silent call on a connection until it is told, on its standard input, that there were pings enough."""
    pings = {
        # Its measurements of bandwidth are pings, too.
        "grpc.http2.bdp_probe": 0,
        "grpc.keepalive_time_ms": 500,
        "grpc.keepalive_timeout_ms": 5_000,
        "grpc.keepalive_permit_without_calls": 1,
        "grpc.http2.max_pings_without_data": 0,
    }
    chat = ChatServiceStub(connect(*pings.items()))
    events = chat.StreamChat(ending("stall"), timeout=TIMEOUT_S)
    turn_id = started(events)
    sys.stdin.read()
    state = TurnState.Name(turn(chat, turn_id).state)
    chat.CancelTurn(pb.CancelTurnRequest(turn_id=turn_id), timeout=TIMEOUT_S)
    return {"state": state, "end": end_of(events)}


def a_thousand_streams() -> dict:
    """
    Reads so many turns to their ends at a time. Then, twice, breaks off nearly as many at once, and looks whether a call
    beside them lives on.
    """
    chat = ChatServiceStub(connect(("grpc.service_config", json.dumps(PATIENCE))))

    def begin(count: int, request: pb.StreamChatRequest) -> list:
        """A hundred at a time: how many turns a small machine can begin in a moment is not what is asked here."""
        begun = []
        while len(begun) < count:
            batch = [chat.StreamChat(request, timeout=TIMEOUT_S) for _ in range(min(100, count - len(begun)))]
            for events in batch:
                started(events)
            begun += batch
        return begun

    whole = sum(list(events)[-1].HasField("turn_completed") for events in begin(1_000, request("")))

    beside = chat.StreamChat(ending("stall"), timeout=TIMEOUT_S)
    turn_id = started(beside)
    cancelled, states = 0, []
    for _ in range(2):
        # The call beside them and the one after them make it a thousand.
        broken = begin(998, ending("stall"))
        for events in broken:
            events.cancel()
        cancelled += sum(end_of(events) == "CANCELLED" for events in broken)
        states.append(TurnState.Name(turn(chat, turn_id).state))
    chat.CancelTurn(pb.CancelTurnRequest(turn_id=turn_id), timeout=TIMEOUT_S)
    return {"whole": whole, "cancelled": cancelled, "states_beside": states, "end_beside": end_of(beside)}


def request(team: str) -> pb.StreamChatRequest:
    return pb.StreamChatRequest(message="hello", user_id="u1", agent_team=team)


def ending(team: str) -> pb.StreamChatRequest:
    """A request whose turn ends with its call."""
    of = request(team)
    of.on_disconnect = pb.ON_DISCONNECT_CANCEL
    return of


def started(events) -> str:
    """Reads until a turn has begun, and returns its id."""
    return next(event.turn_started.turn_id for event in events if event.HasField("turn_started"))


def end_of(events) -> str:
    try:
        for _ in events:
            pass
    except grpc.RpcError as error:
        return error.code().name
    return "OK"


def turn(chat: ChatServiceStub, turn_id: str):
    return chat.GetTurn(pb.GetTurnRequest(turn_id=turn_id), timeout=TIMEOUT_S).turn


def refusal(error: grpc.RpcError) -> dict:
    details = rpc_status.from_call(error).details
    info = ErrorInfo()
    for detail in details:
        detail.Unpack(info)
    names = [detail.TypeName() for detail in details]
    return {"code": error.code().name, "reason": info.reason, "details": names}


print(json.dumps(globals()[sys.argv[1].replace(" ", "_").replace("-", "_")]()))
