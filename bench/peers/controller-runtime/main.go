// An operator of AgentRuntime on controller-runtime, as its users would write one: for `cargo xtask bench operator`.
//
// It does the steps of a transition and no more: a boot ConfigMap with a raised epoch, a command to each pod, before it
// says paused a list of the pods that no cache answers, and one write of the status.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/klog/v2/textlogger"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
)

const (
	runtimeLabel = "agents.hive.dev/runtime"
	workers      = 64
	// Calls to pods of one object at once.
	pushes = 128
	// More means that a pod hangs.
	callTimeout = 3 * time.Second
	retryAfter  = time.Second
)

// AgentRuntime, as far as this operator needs it.
type AgentRuntime struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`
	Spec              AgentRuntimeSpec   `json:"spec,omitempty"`
	Status            AgentRuntimeStatus `json:"status,omitempty"`
}

// AgentRuntimeSpec is what a user asks for.
type AgentRuntimeSpec struct {
	DesiredState string    `json:"desiredState,omitempty"`
	Replicas     int32     `json:"replicas,omitempty"`
	Lifecycle    Lifecycle `json:"lifecycle,omitempty"`
}

// Lifecycle says where pods listen.
type Lifecycle struct {
	Port int `json:"port,omitempty"`
}

// AgentRuntimeStatus is what the pods have acknowledged.
type AgentRuntimeStatus struct {
	ObservedGeneration   int64              `json:"observedGeneration"`
	Epoch                int64              `json:"epoch"`
	DesiredState         string             `json:"desiredState,omitempty"`
	State                string             `json:"state,omitempty"`
	Replicas             int32              `json:"replicas"`
	AcknowledgedReplicas int32              `json:"acknowledgedReplicas"`
	Conditions           []metav1.Condition `json:"conditions,omitempty"`
}

// AgentRuntimeList is a list of them.
type AgentRuntimeList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []AgentRuntime `json:"items"`
}

// DeepCopyObject copies it.
func (in *AgentRuntime) DeepCopyObject() runtime.Object {
	out := *in
	out.ObjectMeta = *in.ObjectMeta.DeepCopy()
	out.Status.Conditions = append([]metav1.Condition(nil), in.Status.Conditions...)
	return &out
}

// DeepCopyObject copies it.
func (in *AgentRuntimeList) DeepCopyObject() runtime.Object {
	out := *in
	out.Items = make([]AgentRuntime, len(in.Items))
	for i := range in.Items {
		out.Items[i] = *in.Items[i].DeepCopyObject().(*AgentRuntime)
	}
	return &out
}

var verbs = map[string]string{"running": "resume", "paused": "pause", "stopped": "stop"}

type reconciler struct {
	client.Client
	// Asks the API server itself.
	reader client.Reader
	http   *http.Client
	// The epoch that each pod has acknowledged, by UID.
	acknowledged sync.Map
}

func (r *reconciler) Reconcile(ctx context.Context, request reconcile.Request) (reconcile.Result, error) {
	var agent AgentRuntime
	if err := r.Get(ctx, request.NamespacedName, &agent); err != nil {
		return reconcile.Result{}, client.IgnoreNotFound(err)
	}
	epoch, err := r.boot(ctx, &agent)
	if err != nil {
		if apierrors.IsConflict(err) || apierrors.IsAlreadyExists(err) {
			// The cache is behind; its next event comes here again.
			return reconcile.Result{RequeueAfter: 5 * time.Millisecond}, nil
		}
		return reconcile.Result{}, err
	}
	var pods corev1.PodList
	if err := r.List(ctx, &pods, client.InNamespace(agent.Namespace), client.MatchingFields{runtimeLabel: agent.Name}); err != nil {
		return reconcile.Result{}, err
	}
	r.push(ctx, &agent, pods.Items, epoch)
	uids := make([]types.UID, 0, len(pods.Items))
	for i := range pods.Items {
		uids = append(uids, pods.Items[i].UID)
	}
	count := r.count(uids, epoch)
	all := count == agent.Spec.Replicas
	// What the status says already has been proven.
	told := agent.Status.Epoch == epoch && agent.Status.State == agent.Spec.DesiredState
	if all && !told && agent.Spec.DesiredState != "running" {
		if all, err = r.barrier(ctx, &agent, epoch); err != nil {
			return reconcile.Result{}, err
		}
	}
	if err := r.report(ctx, &agent, epoch, int32(len(uids)), count, all); err != nil {
		if apierrors.IsConflict(err) {
			return reconcile.Result{RequeueAfter: 5 * time.Millisecond}, nil
		}
		return reconcile.Result{}, err
	}
	if !all {
		return reconcile.Result{RequeueAfter: retryAfter}, nil
	}
	return reconcile.Result{}, nil
}

// boot keeps the ConfigMap that pods boot from, and raises its epoch when another state is asked for.
func (r *reconciler) boot(ctx context.Context, agent *AgentRuntime) (int64, error) {
	var boot corev1.ConfigMap
	err := r.Get(ctx, client.ObjectKey{Namespace: agent.Namespace, Name: agent.Name + "-boot"}, &boot)
	missing := apierrors.IsNotFound(err)
	if err != nil && !missing {
		return 0, err
	}
	epoch, _ := strconv.ParseInt(boot.Data["epoch"], 10, 64)
	if !missing && boot.Data["state"] == agent.Spec.DesiredState {
		return epoch, nil
	}
	epoch++
	next := boot.DeepCopy()
	next.Name, next.Namespace = agent.Name+"-boot", agent.Namespace
	next.Data = map[string]string{"epoch": strconv.FormatInt(epoch, 10), "state": agent.Spec.DesiredState}
	if !missing {
		return epoch, r.Update(ctx, next)
	}
	if err := controllerutil.SetControllerReference(agent, next, r.Scheme()); err != nil {
		return 0, err
	}
	return epoch, r.Create(ctx, next)
}

// push commands every pod that has not acknowledged the epoch. A pod that does not answer is tried again later.
func (r *reconciler) push(ctx context.Context, agent *AgentRuntime, pods []corev1.Pod, epoch int64) {
	body, _ := json.Marshal(map[string]int64{"epoch": epoch})
	var group errgroup.Group
	group.SetLimit(pushes)
	for i := range pods {
		pod := &pods[i]
		if known, _ := r.acknowledged.Load(pod.UID); known == epoch || pod.Status.PodIP == "" {
			continue
		}
		group.Go(func() error {
			if err := r.call(ctx, agent, pod, body); err != nil {
				ctrl.LoggerFrom(ctx).Error(err, "a pod does not answer", "pod", pod.Name)
				return nil
			}
			r.acknowledged.Store(pod.UID, epoch)
			return nil
		})
	}
	_ = group.Wait()
}

func (r *reconciler) call(ctx context.Context, agent *AgentRuntime, pod *corev1.Pod, body []byte) error {
	address := net.JoinHostPort(pod.Status.PodIP, strconv.Itoa(agent.Spec.Lifecycle.Port))
	url := fmt.Sprintf("http://%s/api/v1/lifecycle/%s", address, verbs[agent.Spec.DesiredState])
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return err
	}
	request.Header.Set("Content-Type", "application/json")
	response, err := r.http.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	_, _ = io.Copy(io.Discard, response.Body)
	if response.StatusCode >= 300 {
		return fmt.Errorf("%s was answered %d", url, response.StatusCode)
	}
	return nil
}

func (r *reconciler) count(uids []types.UID, epoch int64) int32 {
	var count int32
	for _, uid := range uids {
		if known, _ := r.acknowledged.Load(uid); known == epoch {
			count++
		}
	}
	return count
}

// barrier lists the pods by the API server's store, and says whether each has acknowledged the epoch.
func (r *reconciler) barrier(ctx context.Context, agent *AgentRuntime, epoch int64) (bool, error) {
	pods := metav1.PartialObjectMetadataList{}
	pods.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("PodList"))
	err := r.reader.List(ctx, &pods, client.InNamespace(agent.Namespace), client.MatchingLabels{runtimeLabel: agent.Name})
	if err != nil {
		return false, err
	}
	uids := make([]types.UID, 0, len(pods.Items))
	for i := range pods.Items {
		uids = append(uids, pods.Items[i].UID)
	}
	return r.count(uids, epoch) == int32(len(uids)), nil
}

func (r *reconciler) report(ctx context.Context, agent *AgentRuntime, epoch int64, replicas, count int32, all bool) error {
	state, ready := "starting", metav1.ConditionFalse
	if agent.Spec.DesiredState == "paused" {
		state = "pausing"
	}
	if all {
		state, ready = agent.Spec.DesiredState, metav1.ConditionTrue
	}
	next := agent.DeepCopyObject().(*AgentRuntime)
	next.Status.ObservedGeneration = agent.Generation
	next.Status.Epoch, next.Status.DesiredState, next.Status.State = epoch, agent.Spec.DesiredState, state
	next.Status.Replicas, next.Status.AcknowledgedReplicas = replicas, count
	message := fmt.Sprintf("%d of %d pods are %s", count, agent.Spec.Replicas, agent.Spec.DesiredState)
	setCondition(&next.Status.Conditions, metav1.Condition{
		Type: "Ready", Status: ready, Reason: "Acknowledged", Message: message, ObservedGeneration: agent.Generation,
	})
	if sameStatus(&agent.Status, &next.Status) {
		return nil
	}
	return r.Status().Update(ctx, next)
}

func setCondition(conditions *[]metav1.Condition, next metav1.Condition) {
	next.LastTransitionTime = metav1.Now()
	for i := range *conditions {
		if before := &(*conditions)[i]; before.Type == next.Type {
			if before.Status == next.Status {
				next.LastTransitionTime = before.LastTransitionTime
			}
			*before = next
			return
		}
	}
	*conditions = append(*conditions, next)
}

func sameStatus(a, b *AgentRuntimeStatus) bool {
	one, _ := json.Marshal(a)
	other, _ := json.Marshal(b)
	return bytes.Equal(one, other)
}

func byRuntime(object client.Object) []string {
	return []string{object.GetLabels()[runtimeLabel]}
}

func run() error {
	namespace := flag.String("namespace", "", "the namespace to work in")
	lease := flag.Int("lease-seconds", 0, "stand for election with such a lease")
	flag.Parse()
	ctrl.SetLogger(textlogger.NewLogger(textlogger.NewConfig(textlogger.Verbosity(0))))
	group := schema.GroupVersion{Group: "agents.hive.dev", Version: "v1alpha1"}
	scheme := runtime.NewScheme()
	if err := clientgoscheme.AddToScheme(scheme); err != nil {
		return err
	}
	scheme.AddKnownTypes(group, &AgentRuntime{}, &AgentRuntimeList{})
	metav1.AddToGroupVersion(scheme, group)
	config, err := ctrl.GetConfig()
	if err != nil {
		return err
	}
	config.QPS = -1
	options := ctrl.Options{
		Scheme:  scheme,
		Metrics: metricsserver.Options{BindAddress: "0"},
		Cache: cache.Options{
			DefaultNamespaces: map[string]cache.Config{*namespace: {}},
			DefaultTransform:  cache.TransformStripManagedFields(),
		},
	}
	if *lease > 0 {
		duration := time.Duration(*lease) * time.Second
		renew := duration * 2 / 3
		options.LeaderElection, options.LeaderElectionID = true, "controller-runtime-peer"
		options.LeaderElectionNamespace = *namespace
		options.LeaseDuration, options.RenewDeadline = &duration, &renew
	}
	manager, err := ctrl.NewManager(config, options)
	if err != nil {
		return err
	}
	ctx := ctrl.SetupSignalHandler()
	if err := manager.GetFieldIndexer().IndexField(ctx, &corev1.Pod{}, runtimeLabel, byRuntime); err != nil {
		return err
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.MaxIdleConns, transport.MaxIdleConnsPerHost = 0, 1
	transport.IdleConnTimeout = 5 * time.Second
	reconciler := &reconciler{
		Client: manager.GetClient(),
		reader: manager.GetAPIReader(),
		http:   &http.Client{Transport: transport, Timeout: callTimeout},
	}
	toOwner := handler.EnqueueRequestsFromMapFunc(func(_ context.Context, object client.Object) []reconcile.Request {
		name := types.NamespacedName{Namespace: object.GetNamespace(), Name: object.GetLabels()[runtimeLabel]}
		return []reconcile.Request{{NamespacedName: name}}
	})
	err = ctrl.NewControllerManagedBy(manager).
		Named("agentruntime").
		For(&AgentRuntime{}, builder.WithPredicates(predicate.GenerationChangedPredicate{})).
		// Its own writes are known; only a loss has to be mended.
		Owns(&corev1.ConfigMap{}, builder.WithPredicates(predicate.Funcs{
			CreateFunc: func(event.CreateEvent) bool { return false },
			UpdateFunc: func(event.UpdateEvent) bool { return false },
		})).
		Watches(&corev1.Pod{}, toOwner).
		WithOptions(controller.Options{MaxConcurrentReconciles: workers}).
		Complete(reconciler)
	if err != nil {
		return err
	}
	return manager.Start(ctx)
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
