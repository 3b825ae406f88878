// Command admission judges objects as the API server does when they are written: by the schema, the rules and the
// ratcheting of their definition, with the API server's own code.
//
// It reads {"definition": "YAML", "writes": [{"new": {}, "old": {}, "status": false}]} and writes one answer for each
// write: what is refused, or nothing. Without "old" the object is made; with "status" its status alone is written.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"

	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions"
	v1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	definitions "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/validation"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/validation"
	"k8s.io/apiextensions-apiserver/pkg/registry/customresource"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	kube "k8s.io/apimachinery/pkg/util/json"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"sigs.k8s.io/yaml"
)

type write struct {
	New    json.RawMessage `json:"new"`
	Old    json.RawMessage `json:"old"`
	Status bool            `json:"status"`
}

type asked struct {
	Definition string  `json:"definition"`
	Writes     []write `json:"writes"`
}

// judge gives back what the API server says of a write.
type judge func(write) (string, error)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run() error {
	var asked asked
	if err := json.NewDecoder(os.Stdin).Decode(&asked); err != nil {
		return err
	}
	judge, err := read(asked.Definition)
	if err != nil {
		return err
	}
	answers := make([]string, 0, len(asked.Writes))
	for _, write := range asked.Writes {
		answer, err := judge(write)
		if err != nil {
			return err
		}
		answers = append(answers, answer)
	}
	return json.NewEncoder(os.Stdout).Encode(answers)
}

func read(text string) (judge, error) {
	var external v1.CustomResourceDefinition
	if err := yaml.UnmarshalStrict([]byte(text), &external); err != nil {
		return nil, err
	}
	v1.SetDefaults_CustomResourceDefinition(&external)
	v1.SetDefaults_CustomResourceDefinitionSpec(&external.Spec)
	var definition apiextensions.CustomResourceDefinition
	if err := v1.Convert_v1_CustomResourceDefinition_To_apiextensions_CustomResourceDefinition(&external, &definition, nil); err != nil {
		return nil, err
	}
	// Of one version alone the conversion lifts the schema to the definition.
	version, props := definition.Spec.Versions[0], definition.Spec.Validation
	if version.Schema != nil {
		props = version.Schema
	}
	definition.Status.StoredVersions = []string{version.Name}
	// Rules are compiled here, and refused if they could cost too much.
	if faults := definitions.ValidateCustomResourceDefinition(context.Background(), &definition); len(faults) > 0 {
		return nil, faults.ToAggregate()
	}
	structural, err := schema.NewStructural(props.OpenAPIV3Schema)
	if err != nil {
		return nil, err
	}
	whole, _, err := validation.NewSchemaValidator(props.OpenAPIV3Schema)
	if err != nil {
		return nil, err
	}
	status := props.OpenAPIV3Schema.Properties["status"]
	ofStatus, _, err := validation.NewSchemaValidator(&status)
	if err != nil {
		return nil, err
	}
	kind := v1.SchemeGroupVersion.WithKind(definition.Spec.Names.Kind)
	kind.Group, kind.Version = definition.Spec.Group, version.Name
	objects := customresource.NewStrategy(nil, definition.Spec.Scope == apiextensions.NamespaceScoped, kind, whole, ofStatus,
		structural, &apiextensions.CustomResourceSubresourceStatus{}, nil, nil)
	statuses := customresource.NewStatusStrategy(objects)
	return func(write write) (string, error) {
		next, err := object(write.New)
		if err != nil {
			return "", err
		}
		var faults field.ErrorList
		if len(write.Old) == 0 {
			faults = objects.Validate(context.Background(), next)
		} else if old, err := object(write.Old); err != nil {
			return "", err
		} else if write.Status {
			faults = statuses.ValidateUpdate(context.Background(), next, old)
		} else {
			faults = objects.ValidateUpdate(context.Background(), next, old)
		}
		if len(faults) == 0 {
			return "", nil
		}
		return faults.ToAggregate().Error(), nil
	}, nil
}

// object keeps whole numbers whole, as the rules want them.
func object(raw []byte) (runtime.Object, error) {
	var fields map[string]interface{}
	if err := kube.Unmarshal(raw, &fields); err != nil {
		return nil, err
	}
	return &unstructured.Unstructured{Object: fields}, nil
}
