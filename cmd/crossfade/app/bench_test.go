package app_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"

	"crossfade/cmd/crossfade/app"
	"crossfade/cmd/crossfade/demo"
	"crossfade/config"
	"crossfade/gateway/identity"
	"crossfade/legacy"
)

// BenchmarkServe is a whole gateway between real connections: what profiles
// are taken of. For throughput beside a bare proxy see `make bench`.
func BenchmarkServe(b *testing.B) {
	const user, body = "svc-etl", `data=%7B%22worker%22%3A+%22Worker%28salt%3D8494933214%29%22%7D`
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, `{"response": {"rpc_messages": []}}`)
	}))
	defer upstream.Close()
	issuer, err := demo.NewIssuer(demo.IssuerOptions{
		Clients: map[string]identity.Secret{user: identity.NewSecret("s")}, Lifetime: time.Hour,
	})
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = issuer.Close() }()
	token, err := issuer.Token(b.Context(), user, "luigi")
	if err != nil {
		b.Fatal(err)
	}
	hash, err := legacy.Hash(identity.NewSecret("pass"), legacy.Bcrypt, 4)
	if err != nil {
		b.Fatal(err)
	}
	dir := b.TempDir()
	for name, text := range map[string]string{
		"users":           user + ":" + hash + "\n",
		"principals.yaml": user + ": { team: data-eng, oidc: { subject: " + user + " }, roles: [runner] }\n",
		"roles.yaml":      "roles: { runner: { execute: [\"*\"] } }\n",
		"crossfade.yaml": fmt.Sprintf("mode: enforce\nlisten: 127.0.0.1:0\nmetrics: \"off\"\nupstream: { url: %s, profile: luigi }\n"+
			"legacy: { htpasswd: users }\noidc: { issuer: %s, audience: luigi }\nprincipals: principals.yaml\nroles: roles.yaml\naccess_log: access.log\n",
			upstream.URL, issuer.URL()),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			b.Fatal(err)
		}
	}
	a, err := app.New(b.Context(), app.Options{
		Load: func() (*config.Config, error) {
			return config.Load(config.Source{File: filepath.Join(dir, "crossfade.yaml")})
		},
		Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		b.Fatal(err)
	}
	ctx, stop := context.WithCancel(b.Context())
	ended := make(chan error, 1)
	go func() { ended <- a.Run(ctx, context.Background()) }()
	defer func() { stop(); <-ended }()

	for _, bm := range []struct{ name, credentials string }{
		{"token", "Authorization: Bearer " + token},
		{"password_and_companion", "Authorization: Basic c3ZjLWV0bDpwYXNz\r\nCrossfade-Token: " + token},
	} {
		request := fmt.Appendf(nil, "POST /api/ping HTTP/1.1\r\nHost: gw\r\nContent-Type: application/x-www-form-urlencoded\r\n%s\r\nContent-Length: %d\r\n\r\n%s",
			bm.credentials, len(body), body)
		b.Run(bm.name, func(b *testing.B) {
			b.ReportAllocs()
			b.SetParallelism(16)
			b.RunParallel(func(pb *testing.PB) {
				conn, err := net.Dial("tcp", a.Addr())
				if err != nil {
					b.Error(err)
					return
				}
				defer func() { _ = conn.Close() }()
				r := bufio.NewReader(conn)
				for pb.Next() {
					if _, err := conn.Write(request); err != nil {
						b.Error(err)
						return
					}
					resp, err := http.ReadResponse(r, nil)
					if err != nil {
						b.Error(err)
						return
					}
					_, _ = io.Copy(io.Discard, resp.Body)
					if resp.StatusCode != http.StatusOK || resp.Header.Get("Crossfade-Reason") != "" {
						b.Errorf("%s %s", resp.Status, resp.Header.Get("Crossfade-Reason"))
						return
					}
				}
			})
		})
	}
}
