// Package argocd holds gitops/argocd/argocd-cm.yaml against the engine of Argo CD itself.
package argocd

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	appv1 "github.com/argoproj/argo-cd/v3/pkg/apis/application/v1alpha1"
	"github.com/argoproj/argo-cd/v3/util/lua"
	"github.com/argoproj/gitops-engine/pkg/health"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"
)

const (
	healthKey  = "resource.customizations.health."
	actionsKey = "resource.customizations.actions."
)

type expected struct {
	ArgoCD string `json:"argocd"`
	Flux   string `json:"flux"`
}

// overrides reads the ConfigMap as Argo CD does: group_kind behind the prefix names what it is for.
func overrides(t *testing.T) lua.ResourceHealthOverrides {
	t.Helper()
	text, err := os.ReadFile("../../../gitops/argocd/argocd-cm.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var object struct {
		Data map[string]string `json:"data"`
	}
	if err := yaml.Unmarshal(text, &object); err != nil {
		t.Fatal(err)
	}
	found := lua.ResourceHealthOverrides{}
	for key, script := range object.Data {
		switch {
		case strings.HasPrefix(key, healthKey):
			name := strings.Replace(strings.TrimPrefix(key, healthKey), "_", "/", 1)
			override := found[name]
			override.HealthLua = script
			found[name] = override
		case strings.HasPrefix(key, actionsKey):
			name := strings.Replace(strings.TrimPrefix(key, actionsKey), "_", "/", 1)
			override := found[name]
			override.Actions = script
			found[name] = override
		default:
			t.Errorf("Argo CD knows no key %s", key)
		}
	}
	return found
}

func object(t *testing.T, name string) *unstructured.Unstructured {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("../states", name+".json"))
	if err != nil {
		t.Fatal(err)
	}
	object := &unstructured.Unstructured{}
	if err := object.UnmarshalJSON(text); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return object
}

func table(t *testing.T) map[string]expected {
	t.Helper()
	text, err := os.ReadFile("../states/expected.json")
	if err != nil {
		t.Fatal(err)
	}
	var table map[string]expected
	if err := json.Unmarshal(text, &table); err != nil {
		t.Fatal(err)
	}
	return table
}

func TestEveryStateHasItsHealth(t *testing.T) {
	overrides := overrides(t)
	for name, want := range table(t) {
		t.Run(name, func(t *testing.T) {
			// The whole way of the engine: deletion, the override, and no health where nothing speaks.
			got, err := health.GetResourceHealth(object(t, name), overrides)
			if err != nil || got == nil {
				t.Fatalf("%v, %v", got, err)
			}
			if string(got.Status) != want.ArgoCD {
				t.Errorf("%s (%s), want %s", got.Status, got.Message, want.ArgoCD)
			}
			if got.Message == "" {
				t.Error("it says nothing")
			}
		})
	}
}

func TestAPausedRuntimeLetsTheNextWaveBegin(t *testing.T) {
	for _, name := range []string{"runtime-paused", "runtime-stopped", "runtime-window", "runtime-frozen"} {
		got, err := health.GetResourceHealth(object(t, name), overrides(t))
		if err != nil || got.Status != health.HealthStatusHealthy {
			t.Errorf("%s: %v, %v: a wave goes on at Healthy alone", name, got, err)
		}
	}
}

func vm(t *testing.T) lua.VM {
	return lua.VM{ResourceOverrides: map[string]appv1.ResourceOverride(overrides(t))}
}

// act runs an action as Argo CD does and gives the object that it would patch to.
func act(t *testing.T, vm lua.VM, object *unstructured.Unstructured, name string) *unstructured.Unstructured {
	t.Helper()
	action, err := vm.GetResourceAction(object, name)
	if err != nil {
		t.Fatal(err)
	}
	impacted, err := vm.ExecuteResourceAction(object, action.ActionLua, nil)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	if len(impacted) != 1 || impacted[0].K8SOperation != lua.PatchOperation {
		t.Fatalf("%s: one patch, not %v", name, impacted)
	}
	return impacted[0].UnstructuredObj
}

func TestActionsChangeOneFieldOfTheSpecEach(t *testing.T) {
	vm := vm(t)
	for action, want := range map[string]string{"pause": "paused", "resume": "running", "stop": "stopped"} {
		before := object(t, "runtime-running")
		after := act(t, vm, before.DeepCopy(), action)
		state, _, _ := unstructured.NestedString(after.Object, "spec", "desiredState")
		if state != want {
			t.Errorf("%s: %s, want %s", action, state, want)
		}
		unstructured.RemoveNestedField(before.Object, "spec", "desiredState")
		unstructured.RemoveNestedField(after.Object, "spec", "desiredState")
		same(t, action, before, after)
	}
	before := object(t, "runtime-running")
	after := act(t, vm, before.DeepCopy(), "restart")
	nonce, _, _ := unstructured.NestedString(after.Object, "spec", "restartNonce")
	if len(nonce) != len("2026-01-01T00:00:00Z") {
		t.Errorf("restart: %q", nonce)
	}
	unstructured.RemoveNestedField(before.Object, "spec", "restartNonce")
	unstructured.RemoveNestedField(after.Object, "spec", "restartNonce")
	same(t, "restart", before, after)
}

func same(t *testing.T, action string, before, after *unstructured.Unstructured) {
	t.Helper()
	one, _ := json.Marshal(before.Object)
	two, _ := json.Marshal(after.Object)
	if string(one) != string(two) {
		t.Errorf("%s changes more than its field:\n%s\n%s", action, one, two)
	}
}

func TestWhatIsSoAlreadyIsNotOffered(t *testing.T) {
	vm := vm(t)
	for name, off := range map[string][]string{
		"runtime-running": {"resume"},
		"runtime-paused":  {"pause"},
		"runtime-stopped": {"stop", "restart"},
	} {
		object := object(t, name)
		scripts, err := vm.GetResourceActionDiscovery(object)
		if err != nil {
			t.Fatal(err)
		}
		actions, err := vm.ExecuteResourceActionDiscovery(object, scripts)
		if err != nil || len(actions) != 4 {
			t.Fatalf("%v, %v", actions, err)
		}
		for _, action := range actions {
			want := false
			for _, disabled := range off {
				want = want || disabled == action.Name
			}
			if action.Disabled != want {
				t.Errorf("%s: %s disabled=%v", name, action.Name, action.Disabled)
			}
		}
	}
}
