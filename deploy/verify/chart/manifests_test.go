package chart_test

import (
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	monitoringv1 "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	podsecurity "k8s.io/pod-security-admission/api"
	"k8s.io/pod-security-admission/policy"
	"sigs.k8s.io/yaml"
)

// types are those of Kubernetes and of the Prometheus operator for what the chart
// installs.
var types = map[string]func() any{
	"apps/v1 Deployment":                      func() any { return new(appsv1.Deployment) },
	"apps/v1 StatefulSet":                     func() any { return new(appsv1.StatefulSet) },
	"v1 ConfigMap":                            func() any { return new(corev1.ConfigMap) },
	"v1 Pod":                                  func() any { return new(corev1.Pod) },
	"v1 Service":                              func() any { return new(corev1.Service) },
	"v1 ServiceAccount":                       func() any { return new(corev1.ServiceAccount) },
	"networking.k8s.io/v1 Ingress":            func() any { return new(networkingv1.Ingress) },
	"networking.k8s.io/v1 NetworkPolicy":      func() any { return new(networkingv1.NetworkPolicy) },
	"policy/v1 PodDisruptionBudget":           func() any { return new(policyv1.PodDisruptionBudget) },
	"monitoring.coreos.com/v1 ServiceMonitor": func() any { return new(monitoringv1.ServiceMonitor) },
	"monitoring.coreos.com/v1 PrometheusRule": func() any { return new(monitoringv1.PrometheusRule) },
}

// kubernetes is the oldest version that the chart is for, and the newest one that
// kubectl-validate brings schemas of.
const kubernetes = "1.30"

// TestKubernetesAcceptsWhatIsInstalled has the API server's own validation look at
// every manifest of Kubernetes, and decodes all, the operator's too, strictly.
func TestKubernetesAcceptsWhatIsInstalled(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	dir := t.TempDir()
	for _, name := range cases {
		for _, o := range render(t, name) {
			of := o.APIVersion + " " + o.Kind
			if types[of] == nil {
				t.Errorf("%s: nobody knows %s", name, of)
				continue
			}
			seen[of] = true
			o.as(t, types[of]())
			if strings.HasPrefix(of, "monitoring.") {
				continue
			}
			file := filepath.Join(dir, name+"-"+strings.ToLower(o.Kind)+"-"+o.Metadata.Name+".yaml")
			if err := os.WriteFile(file, []byte(o.text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	for of := range types {
		if !seen[of] {
			t.Errorf("no values lead to a %s", of)
		}
	}
	if out, err := validate(t, dir); err != nil {
		t.Errorf("kubectl-validate: %v\n%s", err, out)
	}
}

func TestWhatKubernetesWouldRefuseIsFound(t *testing.T) {
	t.Parallel()
	deployment := render(t, "default").one(t, "Deployment", "").text
	for name, change := range map[string][2]string{
		"a field that there is not":       {"replicas: 2", "replicas: 2\n  replica: 2"},
		"a value of another type":         {"replicas: 2", "replicas: two"},
		"a field that must be there":      {"      containers:", "      initContainers:"},
		"a volume without a kind of mine": {"emptyDir:", "emptyDirectory:"},
	} {
		dir := t.TempDir()
		broken := strings.Replace(deployment, change[0], change[1], 1)
		if err := os.WriteFile(filepath.Join(dir, "x.yaml"), []byte(broken), 0o600); err != nil {
			t.Fatal(err)
		}
		if out, err := validate(t, dir); err == nil || broken == deployment {
			t.Errorf("%s is not found:\n%s", name, out)
		}
	}
}

func validate(t *testing.T, dir string) (string, error) {
	t.Helper()
	c := exec.Command(tool(t, "kubectl-validate"), "--version", kubernetes, dir)
	c.Env = []string{"HOME=" + dir, "KUBECONFIG=" + filepath.Join(dir, "none")}
	out, err := c.CombinedOutput()
	return string(out), err
}

// gateway is the pod of the gateways.
func (m manifests) gateway(t testing.TB) corev1.PodTemplateSpec {
	t.Helper()
	for _, o := range m {
		switch o.Kind {
		case "Deployment":
			var d appsv1.Deployment
			o.as(t, &d)
			return d.Spec.Template
		case "StatefulSet":
			var s appsv1.StatefulSet
			o.as(t, &s)
			return s.Spec.Template
		}
	}
	t.Fatal("there is no gateway")
	return corev1.PodTemplateSpec{}
}

// TestPodsKeepTheRestrictedStandard asks the evaluation of the admission controller
// itself (kubernetes.io, "Pod Security Standards").
func TestPodsKeepTheRestrictedStandard(t *testing.T) {
	t.Parallel()
	evaluator, err := policy.NewEvaluator(policy.DefaultChecks(), nil)
	if err != nil {
		t.Fatal(err)
	}
	level := podsecurity.LevelVersion{Level: podsecurity.LevelRestricted, Version: podsecurity.LatestVersion()}
	for _, name := range cases {
		m := render(t, name)
		gateway := m.gateway(t)
		pods := map[string]corev1.PodTemplateSpec{"gateway": gateway}
		for _, o := range m {
			if o.Kind == "Pod" {
				var p corev1.Pod
				o.as(t, &p)
				pods["test"] = corev1.PodTemplateSpec{ObjectMeta: p.ObjectMeta, Spec: p.Spec}
			}
		}
		for of, pod := range pods {
			for _, r := range evaluator.EvaluatePod(level, &pod.ObjectMeta, &pod.Spec) {
				if !r.Allowed {
					t.Errorf("%s: the %s would be refused: %s, %s", name, of, r.ForbiddenReason, r.ForbiddenDetail)
				}
			}
			if a := pod.Spec.AutomountServiceAccountToken; a == nil || *a || pod.Spec.EnableServiceLinks == nil || *pod.Spec.EnableServiceLinks {
				t.Errorf("%s: the %s has a token of the cluster, or variables of Services", name, of)
			}
			for _, c := range pod.Spec.Containers {
				if c.Name == "shipper" { // somebody else's
					continue
				}
				if s := c.SecurityContext; s.ReadOnlyRootFilesystem == nil || !*s.ReadOnlyRootFilesystem {
					t.Errorf("%s: %s of the %s may write everywhere", name, c.Name, of)
				}
				if c.Resources.Requests.Memory().IsZero() || c.Resources.Limits.Memory().IsZero() {
					t.Errorf("%s: %s of the %s has no memory of its own", name, c.Name, of)
				}
				for _, mount := range c.VolumeMounts {
					if mount.SubPath != "" || mount.SubPathExpr != "" {
						t.Errorf("%s: %s is mounted by a subPath, so it never changes", name, mount.MountPath)
					}
					if !mount.ReadOnly && mount.Name != "state" {
						t.Errorf("%s: %s can be written to", name, mount.MountPath)
					}
				}
			}
		}
	}
}

// TestSelectorsFindTheGatewaysOnly compares every selector with the labels of the
// gateways and of the test's pod.
func TestSelectorsFindTheGatewaysOnly(t *testing.T) {
	t.Parallel()
	for _, name := range cases {
		m := render(t, name)
		gateway := labels.Set(m.gateway(t).Labels)
		ports := map[string]bool{}
		for _, p := range m.gateway(t).Spec.Containers[0].Ports {
			ports[p.Name] = true
		}
		test := labels.Set{}
		found := 0
		for _, o := range m {
			if o.Kind == "Pod" {
				test = o.Metadata.Labels
			}
		}
		finds := func(o object, selector labels.Selector) {
			t.Helper()
			found++
			if !selector.Matches(gateway) || selector.Empty() || len(test) > 0 && selector.Matches(test) {
				t.Errorf("%s: %s selects by %s; gateways are %s, the test is %s", name, o, selector, gateway, test)
			}
		}
		of := func(s *metav1.LabelSelector) labels.Selector {
			selector, err := metav1.LabelSelectorAsSelector(s)
			if err != nil {
				t.Fatal(err)
			}
			return selector
		}
		for _, o := range m {
			switch o.Kind {
			case "Service":
				var s corev1.Service
				o.as(t, &s)
				finds(o, labels.SelectorFromSet(s.Spec.Selector))
				for _, p := range s.Spec.Ports {
					if !ports[p.TargetPort.StrVal] {
						t.Errorf("%s: %s leads to port %s, and there are %v", name, o, p.TargetPort.String(), ports)
					}
				}
			case "Deployment":
				var d appsv1.Deployment
				o.as(t, &d)
				finds(o, of(d.Spec.Selector))
			case "StatefulSet":
				var s appsv1.StatefulSet
				o.as(t, &s)
				finds(o, of(s.Spec.Selector))
				m.one(t, "Service", s.Spec.ServiceName)
			case "PodDisruptionBudget":
				var b policyv1.PodDisruptionBudget
				o.as(t, &b)
				finds(o, of(b.Spec.Selector))
			case "ServiceMonitor":
				var s monitoringv1.ServiceMonitor
				o.as(t, &s)
				service := m.one(t, "Service", "-metrics")
				if !of(&s.Spec.Selector).Matches(labels.Set(service.Metadata.Labels)) || of(&s.Spec.Selector).Matches(labels.Set(m.one(t, "Service", fullname(name)).Metadata.Labels)) {
					t.Errorf("%s: the ServiceMonitor selects by %v", name, s.Spec.Selector)
				}
				if len(s.Spec.Endpoints) != 1 || len(s.Spec.Endpoints[0].RelabelConfigs) == 0 {
					t.Fatalf("%s: %+v", name, s.Spec.Endpoints)
				}
				job := s.Spec.Endpoints[0].RelabelConfigs[0]
				if job.TargetLabel != "job" || job.Separator == nil || *job.Separator != "/" || job.Action != "" || job.Replacement != nil ||
					!slices.Equal(job.SourceLabels, []monitoringv1.LabelName{"__meta_kubernetes_namespace", "__meta_kubernetes_service_label_app_kubernetes_io_instance"}) ||
					service.Metadata.Labels["app.kubernetes.io/instance"] != release {
					t.Errorf("%s: releases of one name in two namespaces are one job: %+v", name, job)
				}
				if s.Spec.Endpoints[0].Port != "metrics" {
					t.Errorf("%s: %+v", name, s.Spec)
				}
			}
		}
		spec := m.gateway(t).Spec
		for _, c := range spec.TopologySpreadConstraints {
			found++
			if !of(c.LabelSelector).Matches(gateway) {
				t.Errorf("%s: spread by %v", name, c.LabelSelector)
			}
		}
		if spec.Affinity != nil && spec.Affinity.PodAntiAffinity != nil {
			a := spec.Affinity.PodAntiAffinity
			terms := a.RequiredDuringSchedulingIgnoredDuringExecution
			for _, w := range a.PreferredDuringSchedulingIgnoredDuringExecution {
				terms = append(terms, w.PodAffinityTerm)
			}
			for _, term := range terms {
				found++
				if !of(term.LabelSelector).Matches(gateway) {
					t.Errorf("%s: apart from %v", name, term.LabelSelector)
				}
			}
		}
		if found < 3 {
			t.Errorf("%s: only %d selectors were looked at", name, found)
		}
	}
}

// fullname is what the chart calls itself with the values of a case.
func fullname(name string) string {
	switch name {
	case "everything":
		return release + "-fade"
	case "trial":
		return "fader"
	default:
		return release + "-crossfade"
	}
}

// TestNobodyGoesAroundTheGateway reads the network policies as a network does.
func TestNobodyGoesAroundTheGateway(t *testing.T) {
	t.Parallel()
	m := render(t, "production")
	var own, upstream networkingv1.NetworkPolicy
	m.one(t, "NetworkPolicy", "-crossfade").as(t, &own)
	m.one(t, "NetworkPolicy", "-upstream").as(t, &upstream)
	gateway := m.gateway(t).Labels
	test := m.one(t, "Pod", "-test").Metadata.Labels
	scheduler := map[string]string{"app": "luigid"}

	in := func(p networkingv1.NetworkPolicy, from map[string]string, ns string, port int32) bool {
		for _, rule := range p.Spec.Ingress {
			if open(rule.Ports, port) && peers(rule.From, from, ns, p.Namespace) {
				return true
			}
		}
		return false
	}
	out := func(p networkingv1.NetworkPolicy, to map[string]string, ns string, port int32) bool {
		for _, rule := range p.Spec.Egress {
			if open(rule.Ports, port) && peers(rule.To, to, ns, p.Namespace) {
				return true
			}
		}
		return false
	}
	if upstream.Namespace != "pipelines" || !selects(upstream.Spec.PodSelector, scheduler) || selects(upstream.Spec.PodSelector, map[string]string{"app": "web"}) {
		t.Errorf("the upstream's policy is in %s and selects %v", upstream.Namespace, upstream.Spec.PodSelector)
	}
	const luigid, http, metrics, admin, redis = 8082, 8443, 9100, 8081, 6380
	worker := map[string]string{"app": "worker"}
	for what, tt := range map[string]struct{ got, want bool }{
		"a gateway reaches the upstream":                {in(upstream, gateway, namespace, luigid), true},
		"so does the test":                              {in(upstream, test, namespace, luigid), true},
		"a worker does not":                             {in(upstream, worker, "workers", luigid), false},
		"nor one beside the upstream":                   {in(upstream, worker, "pipelines", luigid), false},
		"nor one that has the labels elsewhere":         {in(upstream, gateway, "workers", luigid), false},
		"nor a gateway on another port":                 {in(upstream, gateway, namespace, 22), false},
		"Prometheus reaches the upstream":               {in(upstream, worker, "monitoring", luigid), true},
		"a gateway may leave for the upstream":          {out(own, scheduler, "pipelines", luigid), true},
		"and for nobody else there":                     {out(own, worker, "pipelines", luigid), false},
		"a worker reaches the gateway":                  {in(own, worker, "workers", http), true},
		"but not its metrics":                           {in(own, worker, "workers", metrics), false},
		"nor its console":                               {in(own, worker, "workers", admin), false},
		"somebody else does not reach the gateway":      {in(own, worker, "web", http), false},
		"Prometheus reaches the metrics":                {in(own, worker, "monitoring", metrics), true},
		"but not the gateway":                           {in(own, worker, "monitoring", http), false},
		"the login proxy reaches the console":           {in(own, worker, "sso", admin), true},
		"the test reaches the gateway":                  {in(own, test, namespace, http), true},
		"the test may leave for the gateway":            {out(own, gateway, namespace, http), true},
		"a gateway may not leave for anybody's metrics": {out(own, worker, "web", metrics), false},
		"nor for a Redis in a pod, which is elsewhere":  {out(own, worker, "web", redis), false},
	} {
		if tt.got != tt.want {
			t.Errorf("%s: %v", what, tt.got)
		}
	}
	for name, pod := range map[string]map[string]string{"gateway": gateway, "test": test} {
		if !selects(own.Spec.PodSelector, pod) {
			t.Errorf("no policy selects the %s", name)
		}
	}
	// Names, and what is not in the cluster: by address.
	var addresses []string
	names := false
	for _, rule := range own.Spec.Egress {
		for _, p := range rule.To {
			if p.IPBlock != nil {
				addresses = append(addresses, p.IPBlock.CIDR)
			}
		}
		names = names || open(rule.Ports, 53) && len(rule.To) == 0
	}
	if !names || !slices.Equal(addresses, []string{"10.20.0.0/24", "0.0.0.0/0"}) {
		t.Errorf("names: %v, addresses: %v", names, addresses)
	}
}

// testPorts are the numbers of the ports that rules name.
var testPorts = map[string]int32{"http": 8443, "metrics": 9100, "admin": 8081}

// open reports whether a rule is about a port; without ports it is about all.
func open(ports []networkingv1.NetworkPolicyPort, port int32) bool {
	for _, p := range ports {
		if p.Port == nil || p.Port.IntVal == port || testPorts[p.Port.StrVal] == port {
			return true
		}
	}
	return len(ports) == 0
}

// peers reports whether a rule is about pods with these labels in a namespace; home
// is that of the policy. A rule without peers is about everybody.
func peers(all []networkingv1.NetworkPolicyPeer, pod map[string]string, ns, home string) bool {
	spaces := map[string]string{"kubernetes.io/metadata.name": ns}
	if ns == "workers" {
		spaces["luigi"] = "workers"
	}
	for _, p := range all {
		if p.IPBlock != nil {
			continue
		}
		here := ns == home
		if p.NamespaceSelector != nil {
			here = selects(*p.NamespaceSelector, spaces)
		}
		if here && (p.PodSelector == nil || selects(*p.PodSelector, pod)) {
			return true
		}
	}
	return len(all) == 0
}

func selects(s metav1.LabelSelector, set map[string]string) bool {
	selector, err := metav1.LabelSelectorAsSelector(&s)
	return err == nil && selector.Matches(labels.Set(set))
}

func TestAPodHasTheTimeThatItsDrainTakes(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		flags []string
		want  int64
	}{
		{nil, 5 + 30 + 10},
		{[]string{"--set", "config.drain=1m30s"}, 5 + 90 + 10},
		{[]string{"--set", "config.drain=0s,preStopSeconds=20"}, 20 + 0 + 10},
		{[]string{"--set", "config.drain=1h"}, 5 + 3600 + 10},
		{[]string{"--set", "terminationGracePeriodSeconds=7"}, 7},
	} {
		spec := render(t, "default", tt.flags...).gateway(t).Spec
		sleep := spec.Containers[0].Lifecycle.PreStop.Sleep.Seconds
		if got := *spec.TerminationGracePeriodSeconds; got != tt.want || sleep == 0 {
			t.Errorf("%v: %d seconds, %d of them before it drains; want %d", tt.flags, got, sleep, tt.want)
		}
	}
}

// TestOnlyWhatNeedsANewProcessReplacesPods: the list of what a reload cannot change
// is the gateway's own.
func TestOnlyWhatNeedsANewProcessReplacesPods(t *testing.T) {
	t.Parallel()
	source, err := os.ReadFile(filepath.Join(repository, "cmd/crossfade/app/app.go"))
	if err != nil {
		t.Fatal(err)
	}
	_, body, _ := strings.Cut(string(source), "\nfunc needsRestart(")
	body, _, _ = strings.Cut(body, "\n}\n")
	change := map[string]string{
		"listen.address":     "config.listen=:9082",
		"listen.tls":         "tls.existingSecret=x",
		"metrics":            "config.metrics=:9999",
		"admin.address":      "config.admin=127.0.0.1:8081",
		"admin.tls":          "config.admin=:8081,adminTLS.existingSecret=x",
		"redis":              "config.redis.url=redis://other:6379",
		"access_log":         "config.access_log=-",
		"audit":              "config.audit.stdout=true",
		"shadow":             "config.shadow.workers=2",
		"upstream.profile":   "config.upstream.profile=http",
		"upstream.timeout":   "config.upstream.timeout=1m",
		"rollout.dir":        "config.rollout.dir=/elsewhere",
		"rollout.stickiness": "config.rollout.stickiness=run",
		"rollout.cold_start": "config.rollout.cold_start=snapshot", // of the start alone
		"state_dir":          "config.state_dir=/elsewhere",
	}
	const checksum = "checksum/needs-restart"
	before := render(t, "default").gateway(t)
	for _, found := range regexp.MustCompile(`\{"([a-z_.]+)", `).FindAllStringSubmatch(body, -1) {
		if change[found[1]] == "" {
			t.Errorf("the gateway needs a new process for %s: add it to crossfade.needsRestart of the chart, and here", found[1])
		}
	}
	if n := strings.Count(body, `{"`); n < len(change)-2 {
		t.Errorf("needsRestart of the gateway has %d keys: is it still there?", n)
	}
	for _, key := range slices.Sorted(maps.Keys(change)) {
		after := render(t, "default", "--set", change[key]).gateway(t)
		if before.Annotations[checksum] == after.Annotations[checksum] {
			t.Errorf("after a change of %s the old process stays", key)
		}
	}
	for _, same := range []string{
		"config.mode=enforce", "config.authorization=enforce", "config.upstream.url=http://other:8082", "config.legacy.htpasswd=/etc/crossfade/secrets/x",
		"config.oidc.issuer=https://idp.example.com,config.oidc.audience=x", "config.readiness.soak_runs=30", "config.help=https://wiki.example.com",
		"principals.svc-etl.team=data-eng", "roles.roles.runner.view={*}", "rollout.files.data-eng.percent=50", "config.admin.operators.groups={platform}",
		"config.listen.trusted_proxies={10.0.0.0/8}", "dashboards.enabled=true", "service.type=LoadBalancer",
	} {
		after := render(t, "default", "--set", same).gateway(t)
		b, _ := yaml.Marshal(before)
		a, _ := yaml.Marshal(after)
		if string(a) != string(b) {
			t.Errorf("%s replaces pods, and the running gateways would take it up", same)
		}
	}
}
