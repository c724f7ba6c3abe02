"""Calls with the official openai package of PyPI: a line of JSON on stdin is one call, a line on stdout what came of it."""

import json
import sys
from concurrent.futures import ThreadPoolExecutor
from threading import Lock

import openai

NOTHING = {"content": "", "chunks": 0, "finishReason": None, "usage": None, "headers": {}, "models": [], "error": None}


def call(asked):
    client = openai.OpenAI(
        base_url=asked["baseUrl"],
        api_key=asked["apiKey"],
        max_retries=asked["maxRetries"],
        default_headers=asked["headers"],
        timeout=60,
    )
    answer = dict(NOTHING)
    try:
        if asked["request"] is None:
            answer["models"] = [model.id for model in client.models.list()]
        elif asked["request"].get("stream"):
            raw = client.chat.completions.with_raw_response.create(**asked["request"])
            answer["headers"] = dict(raw.headers)
            for chunk in raw.parse():
                answer["id"] = chunk.id
                answer["model"] = chunk.model
                if chunk.usage is not None:
                    answer["usage"] = chunk.usage.to_dict()
                for choice in chunk.choices:
                    answer["chunks"] += 1
                    answer["content"] += choice.delta.content or ""
                    answer["finishReason"] = choice.finish_reason or answer["finishReason"]
        else:
            raw = client.chat.completions.with_raw_response.create(**asked["request"])
            answer["headers"] = dict(raw.headers)
            completion = raw.parse()
            answer["id"] = completion.id
            answer["model"] = completion.model
            answer["content"] = completion.choices[0].message.content
            answer["finishReason"] = completion.choices[0].finish_reason
            answer["usage"] = completion.usage.to_dict()
    except openai.APIStatusError as error:
        answer["headers"] = dict(error.response.headers)
        answer["error"] = {"name": type(error).__name__, "status": error.status_code, **(error.body or {})}
    except openai.APIError as error:
        answer["error"] = {"name": type(error).__name__, "status": None, **(error.body or {})}
    return answer


def serve(line, lock=Lock()):
    asked = json.loads(line)
    try:
        answer = {"call": asked["call"], "answer": call(asked)}
    except Exception as error:
        answer = {"call": asked["call"], "defect": repr(error)}
    with lock:
        print(json.dumps(answer), flush=True)


with ThreadPoolExecutor(max_workers=16) as pool:
    for line in sys.stdin:
        pool.submit(serve, line)
