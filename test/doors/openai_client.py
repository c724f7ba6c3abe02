"""One call with the official openai package of PyPI: what to ask comes as JSON on stdin, what came of it goes out on stdout."""

import json
import sys

import openai

asked = json.load(sys.stdin)
client = openai.OpenAI(
    base_url=asked["baseUrl"],
    api_key=asked["apiKey"],
    max_retries=asked["maxRetries"],
    default_headers=asked["headers"],
    timeout=60,
)
answer = {"content": "", "chunks": 0, "finishReason": None, "usage": None, "headers": {}, "models": [], "error": None}
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
json.dump(answer, sys.stdout)
