// Five steps with Parley through connect-go. Each prints a line of JSON: what was seen.
package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"log"
	"net/http"
	"os"
	"slices"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/genproto/googleapis/rpc/code"
	"google.golang.org/genproto/googleapis/rpc/errdetails"

	chatv1 "example.com/parley-client/gen/parley/chat/v1"
	"example.com/parley-client/gen/parley/chat/v1/chatv1connect"
)

const (
	message = "Grüße aus Köln 🦜"
	// A call without a deadline can wait for ever.
	timeout = 60 * time.Second
	// More turns than a service lets one user begin, which is 100 in an hour by default.
	manyTurns = 200
)

// fields are what a step saw.
type fields map[string]any

func main() {
	url := os.Getenv("PARLEY_URL")
	if url == "" {
		url = "http://localhost:8080"
	}
	service := chatv1connect.NewChatServiceClient(http.DefaultClient, url)
	user := "example-" + rand.Text()
	chat(service, user)
	stream(service, user)
	dropAndResume(service, user)
	retry(service, user)
	refusal(service, user)
}

func chat(service chatv1connect.ChatServiceClient, user string) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	reply, err := service.Chat(ctx, connect.NewRequest(&chatv1.ChatRequest{Message: message, UserId: user}))
	check(err)
	tell("chat", fields{
		"response":       reply.Msg.GetResponse(),
		"finish_reason":  reply.Msg.GetFinishReason().String(),
		"total_tokens":   reply.Msg.GetTokenUsage().GetTotalTokens(),
		"cost_micro_usd": reply.Msg.GetCostMicroUsd(),
	})
}

func stream(service chatv1connect.ChatServiceClient, user string) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	events, err := service.StreamChat(ctx, connect.NewRequest(&chatv1.StreamChatRequest{Message: message, UserId: user}))
	check(err)
	var kinds []string
	var text, finishReason string
	lastSequence, withoutGap := int64(0), true
	for event := range received(events) {
		kind := kindOf(event)
		// Events that are in no log have no number. A kind that this program does not know has no name: it goes on.
		if event.GetSequence() == 0 || kind == "" {
			continue
		}
		withoutGap = withoutGap && event.GetSequence() == lastSequence+1
		lastSequence = event.GetSequence()
		if !slices.Contains(kinds, kind) {
			kinds = append(kinds, kind)
		}
		text += event.GetTextDelta().GetText()
		if completed := event.GetTurnCompleted(); completed != nil {
			finishReason = completed.GetFinishReason().String()
		}
	}
	tell("stream", fields{"kinds": kinds, "without_gap": withoutGap, "text": text, "finish_reason": finishReason})
}

func dropAndResume(service chatv1connect.ChatServiceClient, user string) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	dropped, drop := context.WithCancel(ctx)
	events, err := service.StreamChat(dropped, connect.NewRequest(&chatv1.StreamChatRequest{Message: message, UserId: user}))
	check(err)
	var turnID, text, finishReason string
	lastSequence := int64(0)
	for event := range received(events) {
		if started := event.GetTurnStarted(); started != nil {
			turnID = started.GetTurnId()
		}
		lastSequence = max(lastSequence, event.GetSequence())
		text += event.GetTextDelta().GetText()
		if text != "" {
			break
		}
	}
	drop()

	// The turn goes on without its call. Any replica, and any time later, would do as well.
	droppedAfter, withoutGap := lastSequence, true
	rest, err := service.ResumeTurn(ctx, connect.NewRequest(&chatv1.ResumeTurnRequest{TurnId: turnID, AfterSequence: droppedAfter}))
	check(err)
	for event := range received(rest) {
		if event.GetSequence() == 0 {
			continue
		}
		withoutGap = withoutGap && event.GetSequence() == lastSequence+1
		lastSequence = event.GetSequence()
		text += event.GetTextDelta().GetText()
		if completed := event.GetTurnCompleted(); completed != nil {
			finishReason = completed.GetFinishReason().String()
		}
	}
	tell("resume", fields{
		"dropped_after": droppedAfter,
		"last_sequence": lastSequence,
		"without_gap":   withoutGap,
		"text":          text,
		"finish_reason": finishReason,
	})
}

func retry(service chatv1connect.ChatServiceClient, user string) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	request := &chatv1.ChatRequest{Message: message, UserId: user, IdempotencyKey: rand.Text()}
	first, err := service.Chat(ctx, connect.NewRequest(request))
	check(err)
	// As if the first reply had been lost: no model is called again, and nothing is paid for again.
	again, err := service.Chat(ctx, connect.NewRequest(request))
	check(err)
	tell("retry", fields{"same_turn": again.Msg.GetTurnId() == first.Msg.GetTurnId(), "response": again.Msg.GetResponse()})
}

func refusal(service chatv1connect.ChatServiceClient, user string) {
	for admitted := range manyTurns {
		ctx, cancel := context.WithTimeout(context.Background(), timeout)
		_, err := service.Chat(ctx, connect.NewRequest(&chatv1.ChatRequest{Message: message, UserId: user}))
		cancel()
		if err == nil {
			continue
		}
		var refused *connect.Error
		if !errors.As(err, &refused) {
			log.Fatal(err)
		}
		saw := fields{"code": code.Code(refused.Code()).String(), "admitted": admitted}
		for _, packed := range refused.Details() {
			detail, err := packed.Value()
			check(err)
			switch detail := detail.(type) {
			case *errdetails.ErrorInfo:
				saw["reason"] = detail.GetReason()
			case *errdetails.QuotaFailure:
				saw["quota"] = descriptions(detail)
			case *errdetails.RetryInfo:
				saw["retry_after_s"] = detail.GetRetryDelay().GetSeconds()
			}
		}
		tell("refusal", saw)
		return
	}
	log.Fatal("was never refused")
}

// received yields a stream's messages and closes it. Where the RPC fails, the program ends.
func received[Event any](stream *connect.ServerStreamForClient[Event]) func(yield func(*Event) bool) {
	return func(yield func(*Event) bool) {
		for stream.Receive() {
			if !yield(stream.Msg()) {
				// What is left is not to be read: the caller cancels the call.
				return
			}
		}
		check(stream.Err())
		check(stream.Close())
	}
}

func kindOf(event *chatv1.StreamChatResponse) string {
	of := event.ProtoReflect()
	field := of.WhichOneof(of.Descriptor().Oneofs().ByName("event"))
	if field == nil {
		return ""
	}
	return string(field.Name())
}

func descriptions(quota *errdetails.QuotaFailure) []string {
	var all []string
	for _, violation := range quota.GetViolations() {
		all = append(all, violation.GetDescription())
	}
	return all
}

func tell(step string, saw fields) {
	line := struct {
		Client string `json:"client"`
		Step   string `json:"step"`
		Saw    fields `json:"saw"`
	}{"connect-go", step, saw}
	check(json.NewEncoder(os.Stdout).Encode(line))
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
