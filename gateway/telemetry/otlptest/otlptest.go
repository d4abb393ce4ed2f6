// Package otlptest is a collector of traces for tests: a real receiver of OTLP,
// over gRPC and over HTTP, and the two ways in which one is gone.
package otlptest

import (
	"context"
	"encoding/hex"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"sync"
	"testing"

	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	commonv1 "go.opentelemetry.io/proto/otlp/common/v1"
	tracev1 "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
)

// The protocols, as OTEL_EXPORTER_OTLP_PROTOCOL names them.
const (
	GRPC = "grpc"
	HTTP = "http/protobuf"
)

// Protocols are both.
func Protocols() []string { return []string{GRPC, HTTP} }

// Span is one that was received. Ids are in lower-case hex; Parent is "" for
// none.
type Span struct {
	Service, Name     string
	Trace, ID, Parent string
	Kind              tracev1.Span_SpanKind
	Status            tracev1.Status_StatusCode
	Attributes        map[string]string
	Events            []Event
	Links             []string // the ids of spans
}

// Event is one of a span.
type Event struct {
	Name       string
	Attributes map[string]string
}

// Collector is one that listens until the test ends. It is safe for concurrent
// use.
type Collector struct {
	// Endpoint is the value for OTEL_EXPORTER_OTLP_ENDPOINT.
	Endpoint string

	mu    sync.Mutex
	spans []Span
}

// Start starts a collector for one of the protocols, on a free port of the
// loopback interface.
func Start(t testing.TB, protocol string) *Collector {
	t.Helper()
	c := &Collector{}
	if protocol == HTTP {
		server := httptest.NewServer(http.HandlerFunc(c.serveHTTP))
		t.Cleanup(server.Close)
		c.Endpoint = server.URL
		return c
	}
	listener := listen(t)
	server := grpc.NewServer()
	collector.RegisterTraceServiceServer(server, &service{Collector: c})
	var done sync.WaitGroup
	done.Go(func() { _ = server.Serve(listener) })
	t.Cleanup(func() { server.Stop(); done.Wait() })
	c.Endpoint = "http://" + listener.Addr().String()
	return c
}

// Spans returns what was received so far, in that order.
func (c *Collector) Spans() []Span {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.spans)
}

// Refusing is the endpoint of a collector that is not there: nobody listens.
func Refusing(t testing.TB) (endpoint string) {
	t.Helper()
	listener := listen(t)
	_ = listener.Close()
	return "http://" + listener.Addr().String()
}

// Silent is the endpoint of a collector that takes connections and never says a
// word. called is closed when the first client has connected.
func Silent(t testing.TB) (endpoint string, called <-chan struct{}) {
	t.Helper()
	listener := listen(t)
	first := make(chan struct{})
	var serving sync.WaitGroup
	serving.Go(func() {
		var conns []net.Conn
		defer func() {
			for _, conn := range conns {
				_ = conn.Close()
			}
		}()
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			if conns = append(conns, conn); len(conns) == 1 {
				close(first)
			}
		}
	})
	t.Cleanup(func() { _ = listener.Close(); serving.Wait() })
	return "http://" + listener.Addr().String(), first
}

func listen(t testing.TB) net.Listener {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return listener
}

// service is the collector over gRPC.
type service struct {
	collector.UnimplementedTraceServiceServer
	*Collector
}

// Export implements the service of OTLP.
func (s *service) Export(_ context.Context, in *collector.ExportTraceServiceRequest) (*collector.ExportTraceServiceResponse, error) {
	s.receive(in)
	return &collector.ExportTraceServiceResponse{}, nil
}

// serveHTTP is OTLP/HTTP with binary protobuf.
func (c *Collector) serveHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	var in collector.ExportTraceServiceRequest
	if err == nil {
		err = proto.Unmarshal(body, &in)
	}
	if err != nil || r.Method != http.MethodPost || r.URL.Path != "/v1/traces" || r.Header.Get("Content-Type") != "application/x-protobuf" {
		http.Error(w, "not OTLP", http.StatusBadRequest)
		return
	}
	c.receive(&in)
	w.Header().Set("Content-Type", "application/x-protobuf") // an empty response is no bytes
}

func (c *Collector) receive(in *collector.ExportTraceServiceRequest) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, from := range in.GetResourceSpans() {
		resource := attributes(from.GetResource().GetAttributes())
		for _, scope := range from.GetScopeSpans() {
			for _, s := range scope.GetSpans() {
				span := Span{
					Service: resource["service.name"], Name: s.GetName(), Kind: s.GetKind(), Status: s.GetStatus().GetCode(),
					Trace: hex.EncodeToString(s.GetTraceId()), ID: hex.EncodeToString(s.GetSpanId()), Parent: hex.EncodeToString(s.GetParentSpanId()),
					Attributes: attributes(s.GetAttributes()),
				}
				for _, e := range s.GetEvents() {
					span.Events = append(span.Events, Event{e.GetName(), attributes(e.GetAttributes())})
				}
				for _, l := range s.GetLinks() {
					span.Links = append(span.Links, hex.EncodeToString(l.GetSpanId()))
				}
				c.spans = append(c.spans, span)
			}
		}
	}
}

// attributes are those of a span as text; lists and maps are in the text format
// of protobuf.
func attributes(list []*commonv1.KeyValue) map[string]string {
	all := make(map[string]string, len(list))
	for _, kv := range list {
		switch value := kv.GetValue().GetValue().(type) {
		case *commonv1.AnyValue_StringValue:
			all[kv.GetKey()] = value.StringValue
		case *commonv1.AnyValue_IntValue:
			all[kv.GetKey()] = strconv.FormatInt(value.IntValue, 10)
		default:
			all[kv.GetKey()] = kv.GetValue().String()
		}
	}
	return all
}
