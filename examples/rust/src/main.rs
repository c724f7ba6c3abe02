//! Five steps with Parley through tonic. Each prints a line of JSON: what was seen.

use std::{env, error::Error, time::Duration};

use serde_json::{Value, json};
use tonic::{Code, Request, Status, transport::Channel};
use tonic_types::StatusExt;
use uuid::Uuid;

// Of what is generated a program uses a part.
#[allow(dead_code)]
#[path = "../gen/parley/chat/v1/parley.chat.v1.rs"]
mod parley;

use parley::{
    ChatRequest, FinishReason, ResumeTurnRequest, StreamChatRequest, chat_service_client::ChatServiceClient,
    resume_turn_response, stream_chat_response::Event,
};

const MESSAGE: &str = "Grüße aus Köln 🦜";

/// A call without a deadline can wait for ever.
const TIMEOUT: Duration = Duration::from_secs(60);

/// More turns than a service lets one user begin, which is 100 in an hour by default.
const MANY_TURNS: u32 = 200;

type Service = ChatServiceClient<Channel>;
type Done = Result<(), Box<dyn Error>>;

#[tokio::main]
async fn main() -> Done {
    let url = env::var("PARLEY_URL").unwrap_or("http://localhost:8080".into());
    let mut service = ChatServiceClient::connect(url).await?;
    let user = format!("example-{}", Uuid::new_v4());
    chat(&mut service, &user).await?;
    stream(&mut service, &user).await?;
    drop_and_resume(&mut service, &user).await?;
    retry(&mut service, &user).await?;
    refusal(&mut service, &user).await
}

async fn chat(service: &mut Service, user: &str) -> Done {
    let reply = service.chat(within_timeout(chat_request(user))).await?.into_inner();
    tell(
        "chat",
        json!({
            "response": reply.response,
            "finish_reason": reply.finish_reason().as_str_name(),
            "total_tokens": reply.token_usage.map(|usage| usage.total_tokens),
            "cost_micro_usd": reply.cost_micro_usd,
        }),
    );
    Ok(())
}

async fn stream(service: &mut Service, user: &str) -> Done {
    let mut kinds: Vec<&str> = vec![];
    let (mut text, mut finish_reason) = (String::new(), FinishReason::Unspecified);
    let (mut last_sequence, mut without_gap) = (0, true);
    let mut events = service.stream_chat(within_timeout(stream_request(user))).await?.into_inner();
    while let Some(response) = events.message().await? {
        // Events that are in no log have no number. A kind that this program does not know is no event: it goes on.
        let Some(event) = response.event else { continue };
        if response.sequence == 0 {
            continue;
        }
        without_gap &= response.sequence == last_sequence + 1;
        last_sequence = response.sequence;
        let kind = kind_of(&event);
        if !kinds.contains(&kind) {
            kinds.push(kind);
        }
        match event {
            Event::TextDelta(delta) => text += &delta.text,
            Event::TurnCompleted(completed) => finish_reason = completed.finish_reason(),
            _ => {}
        }
    }
    tell(
        "stream",
        json!({
            "kinds": kinds,
            "without_gap": without_gap,
            "text": text,
            "finish_reason": finish_reason.as_str_name(),
        }),
    );
    Ok(())
}

async fn drop_and_resume(service: &mut Service, user: &str) -> Done {
    let (mut turn_id, mut text) = (String::new(), String::new());
    let mut last_sequence = 0;
    let mut events = service.stream_chat(within_timeout(stream_request(user))).await?.into_inner();
    while let Some(response) = events.message().await? {
        last_sequence = last_sequence.max(response.sequence);
        match response.event {
            Some(Event::TurnStarted(started)) => turn_id = started.turn_id,
            Some(Event::TextDelta(delta)) => {
                text += &delta.text;
                break;
            }
            _ => {}
        }
    }
    drop(events);

    // The turn goes on without its call. Any replica, and any time later, would do as well.
    let (dropped_after, mut without_gap) = (last_sequence, true);
    let mut finish_reason = FinishReason::Unspecified;
    let request = ResumeTurnRequest { turn_id, after_sequence: dropped_after };
    let mut events = service.resume_turn(within_timeout(request)).await?.into_inner();
    while let Some(response) = events.message().await? {
        if response.sequence == 0 {
            continue;
        }
        without_gap &= response.sequence == last_sequence + 1;
        last_sequence = response.sequence;
        match response.event {
            Some(resume_turn_response::Event::TextDelta(delta)) => text += &delta.text,
            Some(resume_turn_response::Event::TurnCompleted(completed)) => finish_reason = completed.finish_reason(),
            _ => {}
        }
    }
    tell(
        "resume",
        json!({
            "dropped_after": dropped_after,
            "last_sequence": last_sequence,
            "without_gap": without_gap,
            "text": text,
            "finish_reason": finish_reason.as_str_name(),
        }),
    );
    Ok(())
}

async fn retry(service: &mut Service, user: &str) -> Done {
    let request = ChatRequest { idempotency_key: Uuid::new_v4().to_string(), ..chat_request(user) };
    let first = service.chat(within_timeout(request.clone())).await?.into_inner();
    // As if the first reply had been lost: no model is called again, and nothing is paid for again.
    let again = service.chat(within_timeout(request)).await?.into_inner();
    tell("retry", json!({ "same_turn": again.turn_id == first.turn_id, "response": again.response }));
    Ok(())
}

async fn refusal(service: &mut Service, user: &str) -> Done {
    for admitted in 0..MANY_TURNS {
        if let Err(refused) = service.chat(within_timeout(chat_request(user))).await {
            tell("refusal", refusal_seen(&refused, admitted));
            return Ok(());
        }
    }
    Err("was never refused".into())
}

fn refusal_seen(refused: &Status, admitted: u32) -> Value {
    let details = refused.get_error_details();
    let quota = details.quota_failure().map_or(&[][..], |quota| &quota.violations);
    json!({
        "code": code_name(refused.code()),
        "reason": details.error_info().map(|info| &info.reason),
        "admitted": admitted,
        "quota": quota.iter().map(|violation| &violation.description).collect::<Vec<_>>(),
        "retry_after_s": details.retry_info().and_then(|advice| advice.retry_delay).map(|delay| delay.as_secs()),
    })
}

fn chat_request(user: &str) -> ChatRequest {
    ChatRequest { message: MESSAGE.into(), user_id: user.into(), ..Default::default() }
}

fn stream_request(user: &str) -> StreamChatRequest {
    StreamChatRequest { message: MESSAGE.into(), user_id: user.into(), ..Default::default() }
}

fn within_timeout<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(TIMEOUT);
    request
}

/// An event's kind as the proto has it.
fn kind_of(event: &Event) -> &'static str {
    match event {
        Event::TurnStarted(_) => "turn_started",
        Event::AgentStarted(_) => "agent_started",
        Event::TextDelta(_) => "text_delta",
        Event::MessageCompleted(_) => "message_completed",
        Event::UsageRecorded(_) => "usage_recorded",
        Event::TurnCompleted(_) => "turn_completed",
        _ => "other",
    }
}

fn code_name(code: Code) -> String {
    match code {
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED".into(),
        other => format!("{other:?}"),
    }
}

fn tell(step: &str, saw: Value) {
    println!("{}", json!({ "client": "tonic", "step": step, "saw": saw }));
}
