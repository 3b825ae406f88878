// Package flux holds the conditions of AgentRuntime and AgentFreeze against kstatus, by which Flux waits.
package flux

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/fluxcd/cli-utils/pkg/kstatus/status"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

type expected struct {
	ArgoCD string `json:"argocd"`
	Flux   string `json:"flux"`
}

func TestEveryStateHasItsStatus(t *testing.T) {
	text, err := os.ReadFile("../states/expected.json")
	if err != nil {
		t.Fatal(err)
	}
	var table map[string]expected
	if err := json.Unmarshal(text, &table); err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob("../states/*-*.json")
	if err != nil || len(files) != len(table) {
		t.Fatalf("%d files, %d in the table, %v", len(files), len(table), err)
	}
	for name, want := range table {
		t.Run(name, func(t *testing.T) {
			text, err := os.ReadFile(filepath.Join("../states", name+".json"))
			if err != nil {
				t.Fatal(err)
			}
			object := &unstructured.Unstructured{}
			if err := object.UnmarshalJSON(text); err != nil {
				t.Fatal(err)
			}
			got, err := status.Compute(object)
			if err != nil {
				t.Fatal(err)
			}
			if string(got.Status) != want.Flux {
				t.Errorf("%s (%s), want %s", got.Status, got.Message, want.Flux)
			}
		})
	}
}
