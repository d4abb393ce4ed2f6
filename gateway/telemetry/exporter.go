package telemetry

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"sync/atomic"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"
)

// exporter sends spans by next. A collector that is away would make the SDK
// write a line to standard error for every batch; here it costs the spans,
// which are counted, and is reported when it begins and when it is over.
type exporter struct {
	next   sdktrace.SpanExporter
	health *health
	lost   atomic.Uint64
	// waiting are the spans that were taken and have neither gone nor failed.
	waiting atomic.Int64

	// stop ends what is being sent, and fails what is sent later, when Close
	// gives up waiting. It is not the context of any one batch.
	stopped context.Context
	stop    context.CancelFunc
}

func newExporter(next sdktrace.SpanExporter, report func(error)) *exporter {
	e := &exporter{next: next, health: &health{report: report}}
	e.stopped, e.stop = context.WithCancel(context.Background())
	return e
}

// ExportSpans implements sdktrace.SpanExporter; it never fails.
func (e *exporter) ExportSpans(ctx context.Context, batch []sdktrace.ReadOnlySpan) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(e.stopped, cancel)()
	err := e.next.ExportSpans(ctx, batch)
	if err != nil {
		e.lost.Add(uint64(len(batch)))
	}
	e.waiting.Add(-int64(len(batch)))
	e.health.note(err)
	return nil
}

// Shutdown implements sdktrace.SpanExporter.
func (e *exporter) Shutdown(ctx context.Context) error { return e.next.Shutdown(ctx) }

// batches gathers spans for an exporter. The SDK, which does that, drops what
// its queue has no room for and tells nobody: here it is turned away before, and
// counted as lost.
type batches struct {
	sdktrace.SpanProcessor
	exporter *exporter
	room     int64
}

// newBatches reads OTEL_BSP_MAX_QUEUE_SIZE; the SDK reads the other OTEL_BSP_
// variables.
func newBatches(e *exporter) (*batches, error) {
	const variable = "OTEL_BSP_MAX_QUEUE_SIZE"
	room := sdktrace.DefaultMaxQueueSize
	if size, err := strconv.Atoi(os.Getenv(variable)); err == nil {
		room = size
	}
	if room < 1 { // the SDK would panic
		return nil, fmt.Errorf("%s is %d: write how many spans may wait, 1 or more", variable, room)
	}
	return &batches{sdktrace.NewBatchSpanProcessor(e, sdktrace.WithMaxQueueSize(room)), e, int64(room)}, nil
}

// OnEnd implements sdktrace.SpanProcessor. It waits for nothing.
func (b *batches) OnEnd(span sdktrace.ReadOnlySpan) {
	if !span.SpanContext().IsSampled() {
		return
	}
	if b.exporter.waiting.Add(1) > b.room {
		b.exporter.waiting.Add(-1)
		b.exporter.lost.Add(1)
		return
	}
	b.SpanProcessor.OnEnd(span)
}

// health reports changes: the first failure, and nil when it is over. It is for
// one goroutine.
type health struct {
	report  func(error) // may be nil
	failing bool
}

func (h *health) note(err error) {
	if h.report != nil && (err != nil) != h.failing {
		h.report(err)
	}
	h.failing = err != nil
}
