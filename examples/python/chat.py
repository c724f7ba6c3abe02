"""Five steps with Parley through grpcio. Each prints a line of JSON: what was seen."""

import json
import os
import sys
from pathlib import Path
from uuid import uuid4

import grpc
from google.rpc.error_details_pb2 import ErrorInfo, QuotaFailure, RetryInfo
from grpc_status import rpc_status

sys.path.append(str(Path(__file__).parent / "gen"))
from parley.chat.v1.chat_service_pb2 import ChatRequest, ResumeTurnRequest, StreamChatRequest
from parley.chat.v1.chat_service_pb2_grpc import ChatServiceStub
from parley.chat.v1.turn_pb2 import FinishReason

MESSAGE = "Grüße aus Köln 🦜"
# A call without a deadline can wait for ever.
TIMEOUT_S = 60
# More turns than a service lets one user begin, which is 100 in an hour by default.
MANY_TURNS = 200


def main() -> None:
    address = os.environ.get("PARLEY_URL", "http://localhost:8080").removeprefix("http://")
    user = f"example-{uuid4()}"
    with grpc.insecure_channel(address) as channel:
        service = ChatServiceStub(channel)
        chat(service, user)
        stream(service, user)
        drop_and_resume(service, user)
        retry(service, user)
        refusal(service, user)


def chat(service: ChatServiceStub, user: str) -> None:
    reply = service.Chat(ChatRequest(message=MESSAGE, user_id=user), timeout=TIMEOUT_S)
    tell(
        "chat",
        response=reply.response,
        finish_reason=FinishReason.Name(reply.finish_reason),
        total_tokens=reply.token_usage.total_tokens,
        cost_micro_usd=reply.cost_micro_usd,
    )


def stream(service: ChatServiceStub, user: str) -> None:
    kinds: list[str] = []
    sequences: list[int] = []
    text = finish_reason = ""
    for event in service.StreamChat(StreamChatRequest(message=MESSAGE, user_id=user), timeout=TIMEOUT_S):
        kind = event.WhichOneof("event")
        # Events that are in no log have no number. A kind that this program does not know has no name: it goes on.
        if event.sequence == 0 or kind is None:
            continue
        sequences.append(event.sequence)
        if kind not in kinds:
            kinds.append(kind)
        text += event.text_delta.text
        if kind == "turn_completed":
            finish_reason = FinishReason.Name(event.turn_completed.finish_reason)
    without_gap = sequences == list(range(1, len(sequences) + 1))
    tell("stream", kinds=kinds, without_gap=without_gap, text=text, finish_reason=finish_reason)


def drop_and_resume(service: ChatServiceStub, user: str) -> None:
    turn_id = text = finish_reason = ""
    last_sequence = 0
    call = service.StreamChat(StreamChatRequest(message=MESSAGE, user_id=user), timeout=TIMEOUT_S)
    for event in call:
        turn_id = turn_id or event.turn_started.turn_id
        last_sequence = event.sequence or last_sequence
        text += event.text_delta.text
        if text != "":
            break
    call.cancel()

    # The turn goes on without its call. Any replica, and any time later, would do as well.
    dropped_after = last_sequence
    without_gap = True
    request = ResumeTurnRequest(turn_id=turn_id, after_sequence=dropped_after)
    for event in service.ResumeTurn(request, timeout=TIMEOUT_S):
        if event.sequence == 0:
            continue
        without_gap = without_gap and event.sequence == last_sequence + 1
        last_sequence = event.sequence
        text += event.text_delta.text
        if event.WhichOneof("event") == "turn_completed":
            finish_reason = FinishReason.Name(event.turn_completed.finish_reason)
    tell(
        "resume",
        dropped_after=dropped_after,
        last_sequence=last_sequence,
        without_gap=without_gap,
        text=text,
        finish_reason=finish_reason,
    )


def retry(service: ChatServiceStub, user: str) -> None:
    request = ChatRequest(message=MESSAGE, user_id=user, idempotency_key=str(uuid4()))
    first = service.Chat(request, timeout=TIMEOUT_S)
    # As if the first reply had been lost: no model is called again, and nothing is paid for again.
    again = service.Chat(request, timeout=TIMEOUT_S)
    tell("retry", same_turn=again.turn_id == first.turn_id, response=again.response)


def refusal(service: ChatServiceStub, user: str) -> None:
    for admitted in range(MANY_TURNS):
        try:
            service.Chat(ChatRequest(message=MESSAGE, user_id=user), timeout=TIMEOUT_S)
        except grpc.RpcError as error:
            info, quota, advice = ErrorInfo(), QuotaFailure(), RetryInfo()
            status = rpc_status.from_call(error)
            for detail in status.details if status else []:
                for known in (info, quota, advice):
                    # Unpack leaves a message of another type as it is.
                    detail.Unpack(known)
            tell(
                "refusal",
                code=error.code().name,
                reason=info.reason,
                admitted=admitted,
                quota=[violation.description for violation in quota.violations],
                retry_after_s=advice.retry_delay.seconds,
            )
            return
    sys.exit("was never refused")


def tell(step: str, **saw: object) -> None:
    print(json.dumps({"client": "grpcio", "step": step, "saw": saw}, ensure_ascii=False), flush=True)


main()
