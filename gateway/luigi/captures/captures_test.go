package captures_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"crossfade/gateway/luigi/captures"
)

func TestEveryRecordingLoadsInOrder(t *testing.T) {
	t.Parallel()
	want := map[string]int{captures.Success: 50, captures.Failure: 15, captures.Contention: 71, captures.Visualiser: 119}
	got := map[string]int{}
	for _, name := range captures.Names() {
		exchanges, err := captures.Load(name)
		if err != nil {
			t.Fatal(err)
		}
		got[name] = len(exchanges)
		for i, e := range exchanges {
			if e.Seq != i+1 {
				t.Errorf("%s: exchange %d has seq %d", name, i+1, e.Seq)
			}
			if e.Method == "" || e.Path == "" || e.Status == 0 || len(e.RequestHeaders) == 0 {
				t.Errorf("%s: exchange %d is incomplete: %+v", name, e.Seq, e)
			}
			if e.OmittedBytes != 0 && e.ResponseBody != "" {
				t.Errorf("%s: exchange %d has a body and says that it was omitted", name, e.Seq)
			}
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("exchanges by recording (-want +got):\n%s", diff)
	}
}

func TestAnExchangeKeepsWhatWasRecorded(t *testing.T) {
	t.Parallel()
	exchanges, err := captures.Load(captures.Success)
	if err != nil {
		t.Fatal(err)
	}
	e := exchanges[1]
	if e.Path != "/api/add_worker" || e.Status != 200 || e.Offset() != 42*time.Millisecond || e.Injected() ||
		e.ResponseBody != `{"response": null}` || e.RequestHeaders["Content-Type"] != "application/x-www-form-urlencoded" {
		t.Errorf("second exchange of the successful run: %+v", e)
	}
}

func TestLoadReturnsACopyOfItsOwn(t *testing.T) {
	t.Parallel()
	first, err := captures.Load(captures.Failure)
	if err != nil {
		t.Fatal(err)
	}
	first[0].RequestHeaders["Authorization"] = "changed"
	second, err := captures.Load(captures.Failure)
	if err != nil {
		t.Fatal(err)
	}
	if second[0].RequestHeaders["Authorization"] == "changed" {
		t.Error("a change to one result showed in the next")
	}
}

func TestLoadNamesTheRecordingsWhenAskedForAnother(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"", "nightly", "../captures/" + captures.Failure} {
		if _, err := captures.Load(name); err == nil {
			t.Errorf("Load(%q) succeeded", name)
		}
	}
	_, err := captures.Load("nightly")
	want := `no recording "nightly": choose one of pipeline-success, pipeline-failure, pipeline-contention, visualiser-session`
	if err == nil || err.Error() != want {
		t.Errorf("error = %v, want %s", err, want)
	}
}
