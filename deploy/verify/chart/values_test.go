package chart_test

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

func TestWrongValuesAreRefusedByName(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		flags []string
		want  []string // in the message
	}{
		"a value that there is not":            {[]string{"--set", "replicas=3"}, []string{"'replicas' not allowed"}},
		"one further down":                     {[]string{"--set", "image.repo=x"}, []string{"/image", "'repo' not allowed"}},
		"a word that is not one of those":      {[]string{"--set", "antiAffinity=strong"}, []string{"/antiAffinity", "'soft', 'hard', 'none'"}},
		"a port that is none":                  {[]string{"--set", "service.port=80820"}, []string{"/service/port", "65,535"}},
		"a text where a number belongs":        {[]string{"--set-string", "replicaCount=two"}, []string{"/replicaCount"}},
		"a key that crossfade.yaml has not":    {[]string{"--set", "config.upsteam.url=http://x"}, []string{"/config", "'upsteam' not allowed"}},
		"one further down in it":               {[]string{"--set", "config.redis.passwd_file=/x"}, []string{"/config/redis", "'passwd_file' not allowed"}},
		"a mode that there is not":             {[]string{"--set", "config.mode=enforced"}, []string{"/config/mode", "'observe', 'enforce'"}},
		"off without quotes, which is a false": {[]string{"--set-json", "config.admin=false"}, []string{"/config/admin", "got boolean"}},
		"a key that a team's file has not":     {[]string{"--set", "rollout.files.data-eng.percentage=5"}, []string{"/rollout/files/data-eng", "'percentage' not allowed"}},
		"a file that is no team's":             {[]string{"--set-string", "rollout.files.Data=percent: 5"}, []string{"/rollout/files", "'Data' not allowed"}},
		"an entry with a key of its own":       {[]string{"--set", "principals.svc-etl.teem=x"}, []string{"/principals/svc-etl", "'teem' not allowed"}},
		"no upstream":                          {[]string{"--set", "config.upstream=null"}, []string{"config.upstream.url is missing"}},
		"an upstream that is no URL":           {[]string{"--set", "config.upstream.url=luigid:8082"}, []string{"config.upstream.url is luigid:8082", "like http://luigid:8082"}},
		"a Redis without a name":               {[]string{"--set", "config.redis.url="}, []string{"config.redis.url is empty", "config.redis: null for none"}},
		"a drain that is no time":              {[]string{"--set", "config.drain=soon"}, []string{"config.drain is soon", "like 30s or 1m30s"}},
		"several gateways without a Redis":     {[]string{"--set", "config.redis=null"}, []string{"replicaCount is 2", "set config.redis.url, or replicaCount: 1"}},
		"a password for everybody to read":     {[]string{"--set", "config.redis.password=hunter2"}, []string{"config.redis holds a password", "existingSecret"}},
		"one in a URL":                         {[]string{"--set", "config.redis.url=redis://crossfade:hunter2@redis:6379/0"}, []string{"config.redis holds a password"}},
		"a gateway for its own pod alone":      {[]string{"--set", "config.listen=127.0.0.1:8082"}, []string{"config.listen is 127.0.0.1:8082", `":8082"`}},
		"probes that reach nothing":            {[]string{"--set", "config.metrics=off"}, []string{"config.metrics is off", `":9091"`}},
		"an address without a port":            {[]string{"--set", "config.listen=0.0.0.0"}, []string{"config.listen is 0.0.0.0, which names no port"}},
		"a Service in front of nothing":        {[]string{"--set", "adminService.enabled=true"}, []string{"config.admin is off", "config.admin.viewers"}},
		"a Service in front of a loopback":     {[]string{"--set", "adminService.enabled=true,config.admin=127.0.0.1:8081"}, []string{"config.admin is 127.0.0.1:8081"}},
		"isolation of a whole namespace":       {[]string{"--set", "networkPolicy.upstream.isolate=true"}, []string{"networkPolicy.upstream.podSelector"}},
		"an Ingress without a host":            {[]string{"--set", "ingress.enabled=true"}, []string{"ingress.hosts"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			out, err := template(t, "default", tt.flags...)
			if err == nil {
				t.Fatalf("it is accepted:\n%.500s", out)
			}
			if strings.Contains(err.Error(), "hunter2") {
				t.Errorf("the message tells the password:\n%v", err)
			}
			for _, want := range tt.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("the message does not say %q:\n%v", want, err)
				}
			}
		})
	}
}

func TestWhatMayBeWrittenInSeveralWaysIsTaken(t *testing.T) {
	t.Parallel()
	for name, flags := range map[string][]string{
		"short forms": {"--set", "config.listen=:8082,config.metrics=:9091,config.admin=off"},
		"long forms":  {"--set", "config.listen.address=:8082,config.metrics.address=:9091,config.admin.address=off"},
		"several gateways whose Redis is named by a Secret": {
			"--set", "config.redis=null,extraEnv[0].name=CROSSFADE_REDIS_URL,extraEnv[0].valueFrom.secretKeyRef.name=x,extraEnv[0].valueFrom.secretKeyRef.key=y",
		},
		"a user of Redis in its URL":     {"--set", "config.redis.url=redis://crossfade@redis:6379/0"},
		"the URL of Redis in a file":     {"--set", "config.redis.url=null,config.redis.url_file=/etc/crossfade/secrets/redis-url"},
		"a single element for a list":    {"--set", "config.exempt.paths=/healthz,config.listen.trusted_proxies=10.0.0.0/8"},
		"what a parent chart hands down": {"--set", "global.imageRegistry=x"},
	} {
		if _, err := template(t, "default", flags...); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestACertificateFromElsewhereIsNoLessTLS has one that the chart does not know of:
// from a volume, with a path of its own.
func TestACertificateFromElsewhereIsNoLessTLS(t *testing.T) {
	t.Parallel()
	m := render(t, "default", "--set", "config.listen.tls.cert=/tls/a.crt,config.listen.tls.key=/tls/a.key",
		"--set", "config.admin.address=:8081,config.admin.tls.cert=/tls/b.crt,config.admin.tls.key=/tls/b.key,adminService.enabled=true")
	for _, suffix := range []string{"-crossfade", "-admin"} {
		var s corev1.Service
		m.one(t, "Service", suffix).as(t, &s)
		if s.Spec.Ports[0].Name != "https" {
			t.Errorf("the port of %s is called %s", s.Name, s.Spec.Ports[0].Name)
		}
	}
	var test corev1.Pod
	m.one(t, "Pod", "-test").as(t, &test)
	if len(test.Spec.Containers) != 1 {
		t.Errorf("helm test asks the gateway in the clear: %v", test.Spec.Containers[1].Args)
	}
}

func TestFilesReachTheGatewayAsTheyWereWritten(t *testing.T) {
	t.Parallel()
	config := render(t, "production").one(t, "ConfigMap", fullname("production"))
	if !strings.Contains(config.text, "# Whom to ask: #platform\n") {
		t.Errorf("comments of principals.yaml are lost:\n%s", config.text)
	}
	team := render(t, "production").one(t, "ConfigMap", "-rollout")
	if !strings.Contains(team.text, "reason: week 1   # see the board\n") {
		t.Errorf("comments of a team's file are lost:\n%s", team.text)
	}
	whole := render(t, "everything").one(t, "ConfigMap", fullname("everything"))
	for _, want := range []string{"queue: 1000000\n", `subject: "0123"`, "sunset: \"2099-03-31\""} {
		if !strings.Contains(whole.text, want) {
			t.Errorf("%s is not what was written:\n%s", want, whole.text)
		}
	}
}
