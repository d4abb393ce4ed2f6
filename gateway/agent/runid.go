package agent

import (
	"crypto/rand"
	"fmt"
	"strings"
)

// runHeader tells the gateway what the run is called.
const runHeader = "Crossfade-Run"

// RunVariable is where a wrapped command finds the id of its run.
const RunVariable = "CROSSFADE_RUN"

// maxRunID bounds the id of a run in bytes.
const maxRunID = 128

// RunID returns the id of a run: the one that was asked for, else the one of the
// job of GitHub Actions, else one by chance. It is a name to search for, in the
// logs of the agent, the gateway's access log and audit trail, and at the identity
// provider where a source can tell it. The error says what is wrong with the one
// that was asked for.
//
// https://docs.github.com/en/actions/reference/workflows-and-actions/variables
func RunID(asked string, getenv func(string) string) (string, error) {
	if asked != "" {
		if !isRunID(asked) {
			return "", fmt.Errorf("the id of the run must be 1 to %d of A-Z, a-z, 0-9, dot, underscore, colon and hyphen", maxRunID)
		}
		return asked, nil
	}
	job, attempt := getenv("GITHUB_RUN_ID"), getenv("GITHUB_RUN_ATTEMPT")
	if attempt != "" {
		job += "-" + attempt
	}
	if id := "github-" + job; job != "" && isRunID(id) {
		return id, nil
	}
	return strings.ToLower(rand.Text()), nil
}

func isRunID(text string) bool {
	const letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._:-"
	return text != "" && len(text) <= maxRunID && strings.Trim(text, letters) == ""
}
