package attest

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
	"unicode"
)

// cell keeps a text in one cell of a table, and from being read as Markdown or
// HTML: names of pipelines, reasons and details are other people's.
func cell(text string) string {
	return marks.Replace(strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '\uFFFD'
		}
		return r
	}, text))
}

var marks = strings.NewReplacer(
	`\`, `\\`, "|", `\|`, "`", "\\`", "*", `\*`, "_", `\_`, "[", `\[`, "]", `\]`, "<", "&lt;", ">", "&gt;", "&", "&amp;", "#", `\#`, "~", `\~`,
)

// stamp is a time to the second; "never" for none.
func stamp(at time.Time) string {
	if at.IsZero() {
		return "never"
	}
	return at.UTC().Format("2006-01-02 15:04:05Z")
}

func numbers(first string, all ...int) []string {
	cells := []string{first}
	for _, n := range all {
		cells = append(cells, strconv.Itoa(n))
	}
	return cells
}

func none(n int) string {
	if n == 0 {
		return "none"
	}
	return strconv.Itoa(n)
}

// percent writes a bound with two digits, rounded up so that it stays one.
func percent(share float64) string {
	return fmt.Sprintf("%.2f%%", math.Ceil(share*1e4-1e-9)/100)
}
