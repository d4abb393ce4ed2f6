package config

import (
	"errors"
	"strconv"
	"strings"
)

// Size is a number of bytes. Its text is a whole number with an optional unit:
// B, KiB, MiB, GiB (powers of 1024, IEC 80000-13) or kB, MB, GB (powers of
// 1000).
type Size int64

// Powers of 1024.
const (
	KiB Size = 1 << 10
	MiB Size = 1 << 20
	GiB Size = 1 << 30
)

var errSize = errors.New("must be a size like 512KiB or 4MiB")

// sizeUnits is ordered so that no unit hides behind one that ends like it.
func sizeUnits() []struct {
	name   string
	factor Size
} {
	return []struct {
		name   string
		factor Size
	}{
		{"GiB", GiB},
		{"MiB", MiB},
		{"KiB", KiB},
		{"GB", 1e9},
		{"MB", 1e6},
		{"kB", 1e3},
		{"KB", 1e3},
		{"B", 1},
		{"", 1},
	}
}

// UnmarshalText implements encoding.TextUnmarshaler.
func (s *Size) UnmarshalText(text []byte) error {
	t := strings.TrimSpace(string(text))
	for _, unit := range sizeUnits() {
		number, ok := strings.CutSuffix(t, unit.name)
		if !ok {
			continue
		}
		n, err := strconv.ParseInt(strings.TrimSpace(number), 10, 64)
		if err != nil || n < 0 || n > int64(1<<62)/int64(unit.factor) {
			return errSize
		}
		*s = Size(n) * unit.factor
		return nil
	}
	return errSize
}

// MarshalText implements encoding.TextMarshaler.
func (s Size) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// String returns the size in the largest unit that divides it.
func (s Size) String() string {
	for _, unit := range sizeUnits() {
		if s != 0 && unit.factor%1024 == 0 && s%unit.factor == 0 {
			return strconv.FormatInt(int64(s/unit.factor), 10) + unit.name
		}
	}
	return strconv.FormatInt(int64(s), 10)
}
