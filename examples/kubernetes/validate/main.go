// Command validate checks manifests as an API server does that takes them in, without
// one: fields that it does not know, its defaults and its validation, and for pods the
// strictest of the Pod Security Standards, "restricted".
//
// It is a module of its own, so that nothing of Kubernetes is in deaddrop's.
package main

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/kubernetes/pkg/api/legacyscheme"
	podutil "k8s.io/kubernetes/pkg/api/pod"
	"k8s.io/kubernetes/pkg/apis/core"
	_ "k8s.io/kubernetes/pkg/apis/core/install"
	"k8s.io/kubernetes/pkg/apis/core/validation"
	"k8s.io/pod-security-admission/api"
	"k8s.io/pod-security-admission/policy"
)

func main() {
	data := flag.String("data", "", "write what the ConfigMaps hold to this `folder`")
	flag.Usage = func() {
		fmt.Fprintln(flag.CommandLine.Output(), "usage: validate [-data FOLDER] FILE.yaml...")
		flag.PrintDefaults()
	}
	flag.Parse()
	if flag.NArg() == 0 {
		flag.Usage()
		os.Exit(2)
	}
	for _, path := range flag.Args() {
		if err := file(path, *data); err != nil {
			fmt.Fprintf(os.Stderr, "%s: %v\n", path, err)
			os.Exit(1)
		}
	}
}

// file checks each document of a file.
func file(path, data string) error {
	content, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	documents := yaml.NewDocumentDecoder(io.NopCloser(bytes.NewReader(content)))
	defer func() { _ = documents.Close() }()
	buffer := make([]byte, len(content))
	for {
		n, err := documents.Read(buffer)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := document(buffer[:n], data); err != nil {
			return err
		}
	}
}

// document checks one. Its kind has to be one that is known here: what is not
// checked must not pass.
func document(content []byte, data string) error {
	object, kind, err := serializer.NewCodecFactory(legacyscheme.Scheme, serializer.EnableStrict).UniversalDeserializer().Decode(content, nil, nil)
	if err != nil {
		return err
	}
	legacyscheme.Scheme.Default(object)
	switch o := object.(type) {
	case *v1.Pod:
		err = errors.Join(pod(o), restricted(o))
	case *v1.ConfigMap:
		var in core.ConfigMap
		err = convert(o, &in, &in.Namespace, func() field.ErrorList { return validation.ValidateConfigMap(&in) })
		if err == nil && data != "" {
			err = write(o, data)
		}
	case *v1.ServiceAccount:
		var in core.ServiceAccount
		err = convert(o, &in, &in.Namespace, func() field.ErrorList { return validation.ValidateServiceAccount(&in) })
	default:
		err = errors.New("this kind is not checked here")
	}
	if err != nil {
		return fmt.Errorf("%s: %w", kind.Kind, err)
	}
	fmt.Println(kind.Kind, "is valid")
	return nil
}

func pod(o *v1.Pod) error {
	var in core.Pod
	return convert(o, &in, &in.Namespace, func() field.ErrorList {
		options := podutil.GetValidationOptionsFromPodSpecAndMeta(&in.Spec, nil, &in.ObjectMeta, nil)
		return validation.ValidatePodCreate(&in, options)
	})
}

// restricted asks what the admission controller for a namespace with
// "pod-security.kubernetes.io/enforce: restricted" asks.
func restricted(o *v1.Pod) error {
	evaluator, err := policy.NewEvaluator(policy.DefaultChecks())
	if err != nil {
		return err
	}
	level := api.LevelVersion{Level: api.LevelRestricted, Version: api.LatestVersion()}
	result := policy.AggregateCheckResults(evaluator.EvaluatePod(level, &o.ObjectMeta, &o.Spec))
	if !result.Allowed {
		return errors.New("not restricted: " + result.ForbiddenDetail())
	}
	return nil
}

// convert makes the API server's own type of an object, in a namespace, as
// requests have one, and validates it.
func convert(from, to runtime.Object, namespace *string, validate func() field.ErrorList) error {
	if err := legacyscheme.Scheme.Convert(from, to, nil); err != nil {
		return err
	}
	if *namespace == "" {
		*namespace = "default"
	}
	return validate().ToAggregate()
}

func write(o *v1.ConfigMap, folder string) error {
	for name, content := range o.Data {
		if err := os.WriteFile(filepath.Join(folder, name), []byte(content), 0o644); err != nil {
			return err
		}
	}
	return nil
}
