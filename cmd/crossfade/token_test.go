package main

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"crossfade/gateway/oidcauth"
)

func TestInspectSaysWhetherATokenWouldBeAccepted(t *testing.T) {
	t.Parallel()
	idp := issuer(t, 0)
	short := issuer(t, time.Nanosecond)
	file := whole(t, idp.URL(), "http://127.0.0.1:1", nil)
	shortFile := whole(t, short.URL(), "http://127.0.0.1:1", nil)
	forged := token(t, idp, "luigi")
	forged = forged[:len(forged)-4] + "AAAA"
	for name, tc := range map[string]struct {
		token string
		args  []string
		code  int
		said  []string
	}{
		"a good one": {
			token(t, idp, "luigi"),
			[]string{"-c", file},
			exitOK,
			[]string{"YES. The token would be accepted.", "svc-etl, team data-eng, roles [runner]", "claims", "preset generic"},
		},
		"a good one against flags": {
			token(t, idp, "luigi"),
			[]string{"--issuer", idp.URL(), "--audience", "luigi", "--audience", "other"},
			exitOK,
			[]string{"YES.", "team unassigned"},
		},
		"for another audience": {
			token(t, idp, "api://finance"),
			[]string{"-c", file},
			exitFailure,
			[]string{"NO. The token would not be accepted: aud_mismatch", "api://finance", "Who acts: team", "the token would not be accepted: aud_mismatch"},
		},
		"expired": {
			token(t, short, "luigi"), []string{"-c", shortFile}, exitFailure, []string{"NO.", "expired"},
		},
		"expired and for another audience": {
			token(t, short, "api://finance"), []string{"-c", shortFile}, exitFailure, []string{"expired", "aud_mismatch"},
		},
		"of an issuer that nobody configured": {
			token(t, short, "luigi"), []string{"-c", file}, exitFailure, []string{"issuer_unknown"},
		},
		"forged": {
			forged, []string{"-c", file}, exitFailure, []string{"signature_invalid", "Who acts: security"},
		},
		"garbage": {
			"garbage", []string{"-c", file}, exitFailure, []string{"opaque_unsupported"},
		},
		"garbage with dots": {
			"a.b.c", []string{"-c", file}, exitFailure, []string{"malformed_jwt"},
		},
		"nothing": {
			"", []string{"-c", file}, exitUsage, []string{"no secret on stdin"},
		},
		"offline and good as far as one can see": {
			token(t, idp, "luigi"), []string{"-c", file, "--offline"}, exitOK, []string{"So far so good", "signature"},
		},
		"offline and for another audience": {
			token(t, idp, "api://finance"), []string{"-c", file, "--offline"}, exitFailure, []string{"aud_mismatch", "signature"},
		},
		"without a configuration": {
			token(t, idp, "luigi"), []string{"--offline"}, exitOK, []string{"No issuer is configured"},
		},
		"an audience without an issuer": {
			token(t, idp, "luigi"), []string{"-c", file, "--audience", "x"}, exitUsage, []string{"belong to --issuer"},
		},
		"an issuer without an audience": {
			token(t, idp, "luigi"), []string{"--issuer", idp.URL()}, exitUsage, []string{"audience"},
		},
		"a preset that is none": {
			token(t, idp, "luigi"), []string{"--issuer", idp.URL(), "--audience", "luigi", "--preset", "octa"}, exitUsage, []string{"octa"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			got := with{stdin: tc.token + "\n"}.run(t, append([]string{"token", "inspect", "-"}, tc.args...)...)
			got.want(t, tc.code, tc.said...)
			secret := tc.token[strings.LastIndexByte(tc.token, '.')+1:]
			if len(secret) > 20 && strings.Contains(got.stdout+got.stderr, secret) {
				t.Error("the token can be put together again from what was printed")
			}
		})
	}
}

func TestInspectAsJSONHoldsEverythingButTheSignature(t *testing.T) {
	t.Parallel()
	idp := issuer(t, 0)
	file := whole(t, idp.URL(), "http://127.0.0.1:1", nil)
	got := with{stdin: token(t, idp, "api://finance")}.run(t, "token", "inspect", "-", "-c", file, "-o", "json").want(t, exitFailure)
	var in oidcauth.Inspection
	if err := json.Unmarshal([]byte(got.stdout), &in); err != nil {
		t.Fatal(err)
	}
	if in.Status != "rejected" || !in.SignatureVerified || len(in.Findings) != 1 || in.Findings[0].Reason != "aud_mismatch" || len(in.Claims) < 5 {
		t.Errorf("%+v", in)
	}
	with{stdin: token(t, idp, "luigi")}.run(t, "token", "inspect", "-", "-c", file, "-o", "yaml").want(t, exitOK, "status: verified", "name: svc-etl")
}

func TestInspectWhileTheIssuerIsAwayIsNoVerdictOnTheToken(t *testing.T) {
	t.Parallel()
	idp := issuer(t, 0)
	file := whole(t, idp.URL(), "http://127.0.0.1:1", nil)
	text := token(t, idp, "luigi")
	_ = idp.Close()
	with{stdin: text}.run(t, "token", "inspect", "-", "-c", file).want(t, exitFailure, "jwks_unavailable", "Who acts: idp")
}

func TestATokenOnTheCommandLineIsRefusedAndNotRepeated(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{{"eyJhbGciOi.leaked.secret"}, {"-", "eyJhbGciOi.leaked.secret"}} {
		got := run(t, append([]string{"token", "inspect"}, args...)...).want(t, exitUsage, "never from an argument", "leaked")
		if strings.Contains(got.stdout+got.stderr, "eyJhbGciOi") {
			t.Errorf("the token is repeated: %v", got)
		}
	}
}
