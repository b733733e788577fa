package audit

import (
	"context"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"strings"
	"time"

	"github.com/go-logr/logr"
	"golang.org/x/time/rate"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	coreclient "k8s.io/client-go/kubernetes/typed/core/v1"

	"github.com/flux-admission/flux-admission/internal/delivery"
)

const (
	// maxEvents is the number of roots that have an Event.
	maxEvents = 50
	// eventChange is how long at least is between two writes of an Event because its root has changed, eventRefresh when it is written
	// again without a change: the API server deletes Events after an hour.
	eventChange  = time.Minute
	eventRefresh = 30 * time.Minute
	// eventReason is the reason of the Events.
	eventReason = "RootCause"
	// maxEventMessage is the limit of the message of an Event, in bytes.
	maxEventMessage = 1024
)

// Events writes one Event for each root, on the object of Flux that applies it. Its name depends on the root alone, so that a root has
// one Event whatever its number of changes and of leaders.
type Events struct {
	Client coreclient.EventsGetter
	Log    logr.Logger

	written map[delivery.Ref]writtenEvent
	limit   *rate.Limiter
}

// writtenEvent is an Event that this leader has written.
type writtenEvent struct {
	message string
	first   metav1.Time
	last    time.Time
	count   int32
}

// forget drops what was written, because another replica leads.
func (e *Events) forget() {
	if e != nil {
		e.written = nil
	}
}

// write writes the Events that are due. Cached reads the owners.
func (e *Events) write(ctx context.Context, roots []*delivery.Root, cached func(object) (*unstructured.Unstructured, bool)) {
	if e == nil {
		return
	}
	if e.limit == nil {
		e.limit = rate.NewLimiter(1, 10)
	}
	lasting := map[delivery.Ref]writtenEvent{}
	for i, root := range roots {
		written, known := e.written[root.Object]
		if known {
			lasting[root.Object] = written
		}
		message := eventMessage(root)
		since := time.Since(written.last)
		if i >= maxEvents || root.Owner == nil || known && since < eventChange || known && message == written.message && since < eventRefresh {
			continue
		}
		owner, _ := cached(objectOf(*root.Owner))
		if owner == nil || !e.limit.Allow() {
			continue
		}
		if !known {
			written.first = metav1.Now()
		}
		written.message, written.last, written.count = message, time.Now(), written.count+1
		if err := e.put(ctx, owner, root, written); err != nil {
			if ctx.Err() == nil {
				e.Log.Error(err, "Failed to write an Event", "owner", root.Owner.String(), "root", root.Object.String())
			}
			continue
		}
		lasting[root.Object] = written
	}
	e.written = lasting
}

// put creates the Event of a root, or replaces what has changed of it.
func (e *Events) put(ctx context.Context, owner *unstructured.Unstructured, root *delivery.Root, w writtenEvent) error {
	ctx, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	event := &corev1.Event{
		ObjectMeta: metav1.ObjectMeta{Namespace: owner.GetNamespace(), Name: eventName(owner.GetName(), root.Object)},
		InvolvedObject: corev1.ObjectReference{
			APIVersion: owner.GetAPIVersion(), Kind: owner.GetKind(), Namespace: owner.GetNamespace(), Name: owner.GetName(), UID: owner.GetUID(),
		},
		Type: corev1.EventTypeWarning, Reason: eventReason, Message: w.message, Count: w.count,
		FirstTimestamp: w.first, LastTimestamp: metav1.NewTime(w.last),
		Source: corev1.EventSource{Component: managerName}, ReportingController: managerName,
	}
	client := e.Client.Events(event.Namespace)
	_, err := client.Create(ctx, event, metav1.CreateOptions{FieldManager: managerName})
	if apierrors.IsAlreadyExists(err) {
		var patch []byte
		if patch, err = json.Marshal(map[string]any{
			"involvedObject": event.InvolvedObject, "message": event.Message, "count": event.Count, "lastTimestamp": event.LastTimestamp,
		}); err == nil {
			_, err = client.Patch(ctx, event.Name, types.MergePatchType, patch, metav1.PatchOptions{FieldManager: managerName})
		}
	}
	if err != nil {
		return fmt.Errorf("writing Event %s/%s: %w", event.Namespace, event.Name, err)
	}
	return nil
}

// eventName returns the name of the Event of a root.
func eventName(owner string, root delivery.Ref) string {
	h := fnv.New64a()
	_, _ = fmt.Fprintf(h, "%s/%s/%s/%s", root.Group, root.Kind, root.Namespace, root.Name)
	return fmt.Sprintf("%s.flux-admission-%016x", strings.TrimRight(owner[:min(len(owner), 200)], ".-"), h.Sum64())
}

// eventMessage returns the message of an Event. It has nothing that a status reports: whoever may read the Events of the namespace
// need not be allowed to read the root.
func eventMessage(root *delivery.Root) string {
	text := rootText(root) + ". " + root.Fix
	if len(text) > maxEventMessage {
		text = strings.ToValidUTF8(text[:maxEventMessage-len("…")], "") + "…"
	}
	return text
}
