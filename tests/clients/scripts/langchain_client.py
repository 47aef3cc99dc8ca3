"""LangChain with `langchain-anthropic`."""

from typing import Any

from langchain_anthropic import ChatAnthropic
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage

from tests.clients.scripts.driver import TASK, WRONG_KEY, Seen, failure_of, prompt, run


def model(**more: Any) -> ChatAnthropic:
    """The model, pointed at Naka."""
    options = {"model": TASK["model"], "max_tokens": 3000, "base_url": TASK["url"], "api_key": TASK["key"], **more}
    return ChatAnthropic(**options)


def usage_of(answer: Any) -> list[int]:
    """The counts that the client sees; its input includes the caches."""
    usage = answer.usage_metadata
    details = usage["input_token_details"]
    read = details.get("cache_read", 0)
    kept = details.get("cache_creation", 0) + details.get("ephemeral_5m_input_tokens", 0)
    return [usage["input_tokens"] - read - kept, usage["output_tokens"], read, kept]


def text() -> Seen:
    answer = model().invoke(prompt("text"))
    return {"text": answer.content, "usage": [usage_of(answer)]}


def stream() -> Seen:
    pieces = list(model().stream(prompt("stream")))
    whole = pieces[0]
    for piece in pieces[1:]:
        whole = whole + piece
    return {"text": whole.text, "usage": [usage_of(whole)]}


def turns() -> Seen:
    history = [SystemMessage("Be brief."), HumanMessage("Say something."), AIMessage("Something.")]
    return {"text": model().invoke([*history, HumanMessage(prompt("turns"))]).content}


def tool() -> Seen:
    def weather(city: str) -> str:
        """The weather of a city."""
        return "dry" if city else ""

    able = model().bind_tools([weather])
    history: list[Any] = [HumanMessage(prompt("tool"))]
    asked = able.invoke(history)
    (call,) = asked.tool_calls
    told = able.invoke([*history, asked, ToolMessage(weather(**call["args"]), tool_call_id=call["id"])])
    return {"input": call["args"], "text": told.text}


def image() -> Seen:
    picture = {"type": "image", "base64": TASK["image"], "mime_type": "image/png"}
    content: list[Any] = [picture, {"type": "text", "text": prompt("image")}]
    return {"text": model().invoke([HumanMessage(content)]).content}


def thinking() -> Seen:
    answer: Any = model(thinking={"type": "enabled", "budget_tokens": 1024}).invoke(prompt("thinking"))
    return {"thinking": bool(answer.content[0]["thinking"]), "text": answer.text, "usage": [usage_of(answer)]}


def cache() -> Seen:
    system = SystemMessage([{"type": "text", "text": TASK["system"], "cache_control": {"type": "ephemeral"}}])
    return {"usage": [usage_of(model().invoke([system, HumanMessage(prompt("cache"))])) for _ in range(2)]}


def limit() -> Seen:
    return failure_of(lambda: model(api_key=TASK["limited_key"]).invoke(prompt("limit")))


def key() -> Seen:
    return failure_of(lambda: model(api_key=WRONG_KEY).invoke(prompt("key")))


def cancel() -> Seen:
    pieces: Any = model().stream(prompt("cancel"))
    heard = any(piece.text for piece in pieces)
    pieces.close()
    return {"text": heard}


def count() -> Seen:
    return {"counted": model().get_num_tokens_from_messages([HumanMessage(prompt("count"))]) > 0}


if __name__ == "__main__":
    run(
        {
            "text": text,
            "stream": stream,
            "turns": turns,
            "tool": tool,
            "image": image,
            "thinking": thinking,
            "cache": cache,
            "limit": limit,
            "key": key,
            "cancel": cancel,
            "count": count,
        }
    )
