// Probes a Parley service as grpc-go sees it. Its argument names a case; prints what was seen as a line of JSON.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/genproto/googleapis/rpc/code"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/encoding/gzip"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"
	reflectionv1 "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/stats"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	chatv1 "example.com/parley-client/gen/parley/chat/v1"
)

// saw is what a case saw.
type saw map[string]any

var cases = map[string]func(context.Context) saw{
	"headers and trailers": headersAndTrailers,
	"deadline":             deadline,
	"cancellation":         cancellation,
	"compression":          compression,
	"large messages":       largeMessages,
	"large pages":          largePages,
	"empty messages":       emptyMessages,
	"half-closed streams":  halfClosedStreams,
	"reset streams":        resetStreams,
	"keepalive pings":      keepalivePings,
	"a thousand streams":   aThousandStreams,
}

// payloads tells how messages came.
type payloads struct {
	// Whether the last one was sent compressed.
	compressed atomic.Bool
}

func main() {
	probe := cases[os.Args[1]]
	if probe == nil {
		log.Fatalf("no case is called %q", os.Args[1])
	}
	ctx, cancel := context.WithTimeout(context.Background(), 150*time.Second)
	defer cancel()
	line, err := json.Marshal(probe(ctx))
	check(err)
	fmt.Println(string(line))
}

func connect(options ...grpc.DialOption) (*grpc.ClientConn, *payloads) {
	seen := &payloads{}
	address := strings.TrimPrefix(os.Getenv("PARLEY_URL"), "http://")
	options = append(options, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithStatsHandler(seen))
	connection, err := grpc.NewClient(address, options...)
	check(err)
	return connection, seen
}

func service(options ...grpc.DialOption) (chatv1.ChatServiceClient, *payloads) {
	connection, seen := connect(options...)
	return chatv1.NewChatServiceClient(connection), seen
}

func headersAndTrailers(ctx context.Context) saw {
	chat, _ := service()
	ctx = metadata.AppendToOutgoingContext(ctx, "x-request-id", "probe-1")
	var header, trailer metadata.MD
	_, err := chat.Chat(ctx, &chatv1.ChatRequest{Message: "hello", UserId: "u1"}, grpc.Header(&header), grpc.Trailer(&trailer))
	check(err)
	answered := first(header, "x-request-id")
	_, err = chat.GetTurn(ctx, &chatv1.GetTurnRequest{TurnId: "none"}, grpc.Header(&header), grpc.Trailer(&trailer))
	refused := refusal(err)
	refused["answered_request_id"] = answered
	refused["refused_request_id"] = first(metadata.Join(header, trailer), "x-request-id")
	return refused
}

func deadline(ctx context.Context) saw {
	chat, _ := service()
	hasty, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	events, err := chat.StreamChat(hasty, request("stall"))
	check(err)
	turnID := started(events)
	_, err = events.Recv()
	for err == nil {
		_, err = events.Recv()
	}
	seen := saw{"code": codeOf(err), "state": turn(ctx, chat, turnID).GetState().String()}
	_, err = chat.CancelTurn(ctx, &chatv1.CancelTurnRequest{TurnId: turnID})
	check(err)
	return seen
}

func cancellation(ctx context.Context) saw {
	chat, _ := service()
	hasty, cancel := context.WithCancel(ctx)
	events, err := chat.StreamChat(hasty, ending("stall"))
	check(err)
	turnID := started(events)
	cancel()
	for err == nil {
		_, err = events.Recv()
	}
	return saw{"code": codeOf(err), "finish_reason": finished(ctx, chat, turnID).GetFinishReason().String()}
}

func compression(ctx context.Context) saw {
	chat, seen := service(grpc.WithDefaultCallOptions(grpc.UseCompressor(gzip.Name)))
	text := strings.Repeat("compress-me-", 800)
	reply, err := chat.Chat(ctx, &chatv1.ChatRequest{Message: text, UserId: "u1"})
	check(err)
	compressed := seen.compressed.Load()
	events, err := chat.StreamChat(ctx, &chatv1.StreamChatRequest{Message: text, UserId: "u1"})
	check(err)
	streamed := ""
	for {
		event, err := events.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		check(err)
		streamed += event.GetTextDelta().GetText()
	}
	_, err = chat.GetTurn(ctx, &chatv1.GetTurnRequest{TurnId: "none"})
	return saw{
		"replied":    strings.Contains(reply.GetResponse(), text),
		"streamed":   strings.Contains(streamed, text),
		"compressed": compressed,
		"refusal":    codeOf(err),
	}
}

func largeMessages(ctx context.Context) saw {
	chat, _ := service()
	text := strings.Repeat("🦜", 10_000)
	reply, err := chat.Chat(ctx, &chatv1.ChatRequest{Message: text, UserId: "u1", AgentTeam: "roomy"})
	check(err)
	_, err = chat.Chat(ctx, &chatv1.ChatRequest{Message: strings.Repeat("x", 1<<20), UserId: "u1"})
	seen := refusal(err)
	seen["replied"] = strings.Contains(reply.GetResponse(), text)
	// The connection is as good as before.
	_, err = chat.Chat(ctx, &chatv1.ChatRequest{Message: "hello", UserId: "u1"})
	seen["after"] = codeOf(err)
	return seen
}

// largePages reads the longest page of a session of many long messages. grpc-go, as others, takes 4 MiB at most.
func largePages(ctx context.Context) saw {
	connection, _ := connect()
	sessions := chatv1.NewSessionServiceClient(connection)
	pages, messages, token := 0, 0, ""
	for {
		page, err := sessions.ListMessages(ctx, &chatv1.ListMessagesRequest{
			SessionId: os.Getenv("LONG_SESSION"), PageSize: 200, PageToken: token,
		})
		check(err)
		pages++
		messages += len(page.GetMessages())
		token = page.GetNextPageToken()
		if token == "" {
			return saw{"messages": messages, "more_than_a_page": pages > 1}
		}
	}
}

func emptyMessages(ctx context.Context) saw {
	connection, _ := connect()
	health, err := healthv1.NewHealthClient(connection).Check(ctx, &healthv1.HealthCheckRequest{})
	check(err)
	sessions := chatv1.NewSessionServiceClient(connection)
	created, err := sessions.CreateSession(ctx, &chatv1.CreateSessionRequest{UserId: "u1"})
	check(err)
	deleted, err := sessions.DeleteSession(ctx, &chatv1.DeleteSessionRequest{SessionId: created.GetSession().GetSessionId()})
	check(err)
	_, err = chatv1.NewChatServiceClient(connection).Chat(ctx, &chatv1.ChatRequest{})
	seen := refusal(err)
	seen["health"] = health.GetStatus().String()
	seen["deleted_bytes"] = proto.Size(deleted)
	return seen
}

func halfClosedStreams(ctx context.Context) saw {
	connection, _ := connect()
	// Both ways: the client says that it has no more to ask, and reads on.
	both, err := reflectionv1.NewServerReflectionClient(connection).ServerReflectionInfo(ctx)
	check(err)
	answers := 0
	for range 3 {
		check(both.Send(&reflectionv1.ServerReflectionRequest{
			MessageRequest: &reflectionv1.ServerReflectionRequest_ListServices{},
		}))
	}
	check(both.CloseSend())
	for {
		_, err = both.Recv()
		if err != nil {
			break
		}
		answers++
	}
	ended := errors.Is(err, io.EOF)
	// One way: a request counts when it is at its end, not before, however long another call on its connection takes.
	open := &grpc.StreamDesc{StreamName: "StreamChat", ServerStreams: true, ClientStreams: true}
	stream, err := connection.NewStream(ctx, open, chatv1.ChatService_StreamChat_FullMethodName)
	check(err)
	check(stream.SendMsg(request("")))
	early := make(chan error, 1)
	event := &chatv1.StreamChatResponse{}
	go func() { early <- stream.RecvMsg(event) }()
	_, err = chatv1.NewChatServiceClient(connection).Chat(ctx, &chatv1.ChatRequest{Message: "hello", UserId: "u1"})
	check(err)
	waits := false
	select {
	case err = <-early:
		early <- err
	default:
		waits = true
	}
	check(stream.CloseSend())
	check(<-early)
	return saw{
		"answers":         answers,
		"ended":           ended,
		"waits":           waits,
		"then_turn_begun": event.GetTurnStarted().GetTurnId() != "",
	}
}

// resetStreams breaks calls off at every point, and looks whether a call beside them on the connection lives on.
func resetStreams(ctx context.Context) saw {
	connection, _ := connect()
	chat := chatv1.NewChatServiceClient(connection)
	beside, err := chat.StreamChat(ctx, ending("stall"))
	check(err)
	turnID := started(beside)
	open := &grpc.StreamDesc{StreamName: "StreamChat", ServerStreams: true, ClientStreams: true}
	for round := range 600 {
		hasty, cancel := context.WithCancel(ctx)
		stream, err := connection.NewStream(hasty, open, chatv1.ChatService_StreamChat_FullMethodName)
		check(err)
		if round%3 > 0 {
			check(stream.SendMsg(ending("stall")))
		}
		if round%3 > 1 {
			check(stream.CloseSend())
		}
		cancel()
		_ = stream.RecvMsg(&chatv1.StreamChatResponse{})
	}
	state := turn(ctx, chat, turnID).GetState().String()
	_, err = chat.CancelTurn(ctx, &chatv1.CancelTurnRequest{TurnId: turnID})
	check(err)
	for err == nil {
		_, err = beside.Recv()
	}
	return saw{"state_beside": state, "end_beside": codeOf(err)}
}

// keepalivePings has a silent call on a connection until it is told, on its standard input, that there were pings enough.
func keepalivePings(ctx context.Context) saw {
	// grpc-go sends them no sooner than every ten seconds.
	pings := keepalive.ClientParameters{Time: 10 * time.Second, Timeout: 5 * time.Second, PermitWithoutStream: true}
	chat, _ := service(grpc.WithKeepaliveParams(pings))
	events, err := chat.StreamChat(ctx, ending("stall"))
	check(err)
	turnID := started(events)
	_, err = io.ReadAll(os.Stdin)
	check(err)
	state := turn(ctx, chat, turnID).GetState().String()
	_, err = chat.CancelTurn(ctx, &chatv1.CancelTurnRequest{TurnId: turnID})
	check(err)
	for err == nil {
		_, err = events.Recv()
	}
	return saw{"state": state, "end": codeOf(err)}
}

// patience makes a call again that finds the service too busy, as gRPC has it (gRFC A6).
const patience = `{"methodConfig": [{
	"name": [{"service": "parley.chat.v1.ChatService"}],
	"retryPolicy": {
		"maxAttempts": 5, "initialBackoff": "0.5s", "maxBackoff": "5s", "backoffMultiplier": 2,
		"retryableStatusCodes": ["UNAVAILABLE"]
	}
}]}`

// aThousandStreams reads so many turns to their ends on one connection. Then, twice, it breaks off nearly as many at once,
// and looks whether a call beside them lives on.
func aThousandStreams(ctx context.Context) saw {
	chat, _ := service(grpc.WithDefaultServiceConfig(patience))
	// So many begin at a time: how many turns a small machine can begin in a moment is not what is asked here.
	beginning := make(chan struct{}, 100)
	begin := func(ctx context.Context, request *chatv1.StreamChatRequest) grpc.ServerStreamingClient[chatv1.StreamChatResponse] {
		beginning <- struct{}{}
		defer func() { <-beginning }()
		events, err := chat.StreamChat(ctx, request)
		check(err)
		started(events)
		return events
	}
	var reading sync.WaitGroup
	var whole atomic.Int32
	for range 1000 {
		reading.Go(func() {
			events := begin(ctx, request(""))
			for {
				event, err := events.Recv()
				check(err)
				if event.GetTurnCompleted() != nil {
					whole.Add(1)
					return
				}
			}
		})
	}
	reading.Wait()

	beside, err := chat.StreamChat(ctx, ending("stall"))
	check(err)
	turnID := started(beside)
	var cancelled atomic.Int32
	var states []string
	for range 2 {
		hasty, cancel := context.WithCancel(ctx)
		var begun, broken sync.WaitGroup
		// The call beside them and the one after them make it a thousand: Node counts a stream that was reset until it has
		// read all that came with the reset.
		for range 998 {
			begun.Add(1)
			broken.Go(func() {
				events := begin(hasty, ending("stall"))
				begun.Done()
				_, err := events.Recv()
				for err == nil {
					_, err = events.Recv()
				}
				if status.Code(err) == codes.Canceled {
					cancelled.Add(1)
				}
			})
		}
		begun.Wait()
		cancel()
		broken.Wait()
		states = append(states, turn(ctx, chat, turnID).GetState().String())
	}
	_, err = chat.CancelTurn(ctx, &chatv1.CancelTurnRequest{TurnId: turnID})
	check(err)
	for err == nil {
		_, err = beside.Recv()
	}
	return saw{
		"whole": whole.Load(), "cancelled": cancelled.Load(), "states_beside": states, "end_beside": codeOf(err),
	}
}

func request(team string) *chatv1.StreamChatRequest {
	return &chatv1.StreamChatRequest{Message: "hello", UserId: "u1", AgentTeam: team}
}

// ending is a request whose turn ends with its call.
func ending(team string) *chatv1.StreamChatRequest {
	of := request(team)
	of.OnDisconnect = chatv1.OnDisconnect_ON_DISCONNECT_CANCEL
	return of
}

// started reads until a turn has begun, and returns its id.
func started(events grpc.ServerStreamingClient[chatv1.StreamChatResponse]) string {
	for {
		event, err := events.Recv()
		check(err)
		if begun := event.GetTurnStarted(); begun != nil {
			return begun.GetTurnId()
		}
	}
}

func turn(ctx context.Context, chat chatv1.ChatServiceClient, turnID string) *chatv1.Turn {
	reply, err := chat.GetTurn(ctx, &chatv1.GetTurnRequest{TurnId: turnID})
	check(err)
	return reply.GetTurn()
}

// finished waits for a turn's end.
func finished(ctx context.Context, chat chatv1.ChatServiceClient, turnID string) *chatv1.Turn {
	for {
		is := turn(ctx, chat, turnID)
		if is.GetState() == chatv1.TurnState_TURN_STATE_FINISHED {
			return is
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func refusal(err error) saw {
	refused := status.Convert(err)
	details, reason := []string{}, ""
	for _, detail := range refused.Details() {
		details = append(details, string(detail.(proto.Message).ProtoReflect().Descriptor().FullName()))
		if info, ok := detail.(*errdetails.ErrorInfo); ok {
			reason = info.GetReason()
		}
	}
	return saw{"code": codeOf(err), "reason": reason, "details": details}
}

func codeOf(err error) string {
	return code.Code(status.Code(err)).String()
}

func first(of metadata.MD, name string) string {
	return strings.Join(of.Get(name), ", ")
}

func (*payloads) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context   { return ctx }
func (*payloads) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }
func (*payloads) HandleConn(context.Context, stats.ConnStats)                       {}

func (seen *payloads) HandleRPC(_ context.Context, event stats.RPCStats) {
	if payload, ok := event.(*stats.InPayload); ok {
		seen.compressed.Store(payload.CompressedLength < payload.Length)
	}
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
