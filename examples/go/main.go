// The life of an environment, as a provisioning service would manage it: added, waited for, its key rotated, removed.
//
// The SDK keys come from the variables SDK_KEY and NEW_SDK_KEY. Everything may be run again: what is there already is
// taken as it is.
package main

import (
	"context"
	"crypto/rand"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	api "flotilla.example/lifecycle/gen/flotilla/v1"
)

const (
	requestTime = 10 * time.Second // for an answer; a watch has none
	waitTime    = time.Minute
	retries     = 5
)

func main() {
	control := flag.String("control", "127.0.0.1:7400", "HOST:PORT of control")
	name := flag.String("name", "example", "name of the environment")
	prefix := flag.String("prefix", "ld:example", "its prefix in Redis")
	flag.Parse()
	if err := run(*control, *name, *prefix); err != nil {
		// The message of a refusal is written for people, and never holds a key.
		fmt.Fprintf(os.Stderr, "error: %s (%s)\n", status.Convert(err).Message(), reason(err))
		os.Exit(1)
	}
}

func run(control, name, prefix string) error {
	connection, err := grpc.NewClient(control, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer connection.Close()
	environments := api.NewEnvironmentServiceClient(connection)

	if err := add(environments, name, prefix, os.Getenv("SDK_KEY")); err != nil {
		return err
	}
	current, err := waitUntil(environments, name, isCurrent)
	if err != nil {
		return err
	}
	fmt.Printf("environment/%s current: %d flags\n", name, current.Status.GetFlags())
	if err := label(environments, name, "team", "checkout"); err != nil {
		return err
	}
	fmt.Printf("environment/%s updated\n", name)

	rotate := &api.RotateSdkKeyRequest{Name: name, SdkKey: os.Getenv("NEW_SDK_KEY"), RequestId: rand.Text()}
	begun, err := call(environments.RotateSdkKey, rotate)
	if err != nil {
		return err
	}
	if _, err := waitUntil(environments, name, isRotated(begun.Environment)); err != nil {
		return err
	}
	fmt.Printf("environment/%s key rotated\n", name)

	remove := &api.DeleteEnvironmentRequest{Name: name, Purge: true, RequestId: rand.Text()}
	if _, err := call(environments.DeleteEnvironment, remove); err != nil {
		return err
	}
	isGone := func(environment *api.Environment) (bool, error) { return environment == nil, nil }
	if _, err := waitUntil(environments, name, isGone); err != nil {
		return err
	}
	fmt.Printf("environment/%s removed\n", name)
	return nil
}

func add(environments api.EnvironmentServiceClient, name, prefix, sdkKey string) error {
	request := &api.CreateEnvironmentRequest{
		Name:      name,
		Spec:      &api.EnvironmentSpec{Prefix: prefix, Labels: map[string]string{"managed-by": "example"}},
		SdkKey:    sdkKey,
		RequestId: rand.Text(),
	}
	_, err := call(environments.CreateEnvironment, request)
	switch {
	case err == nil:
		fmt.Printf("environment/%s created\n", name)
	case reason(err) == "NAME_TAKEN":
		fmt.Printf("environment/%s is there already\n", name)
	default:
		return err
	}
	return nil
}

// label changes only what was read: an etag keeps two writers from undoing each other.
func label(environments api.EnvironmentServiceClient, name, key, value string) error {
	for attempt := 1; ; attempt++ {
		read, err := call(environments.GetEnvironment, &api.GetEnvironmentRequest{Name: name})
		if err != nil {
			return err
		}
		environment := read.Environment
		if environment.Spec.Labels == nil {
			environment.Spec.Labels = map[string]string{}
		}
		environment.Spec.Labels[key] = value
		_, err = call(environments.UpdateEnvironment, &api.UpdateEnvironmentRequest{
			Name:       name,
			Spec:       environment.Spec,
			UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"labels"}},
			Etag:       environment.Etag,
			RequestId:  rand.Text(),
		})
		if reason(err) != "ETAG_MISMATCH" || attempt == retries {
			return err
		}
	}
}

// call makes a call, and makes it again when it may have been lost: with the same request_id it is done once.
func call[Q, A any](method func(context.Context, *Q, ...grpc.CallOption) (*A, error), request *Q) (*A, error) {
	for attempt := 1; ; attempt++ {
		ctx, cancel := context.WithTimeout(context.Background(), requestTime)
		answer, err := method(ctx, request)
		cancel()
		if err == nil || attempt == retries || !passes(err) {
			return answer, err
		}
		time.Sleep(100 * time.Millisecond << attempt)
	}
}

// waitUntil follows the environment until it is as wanted; a nil environment is one that does not exist. It goes on where
// a stream broke.
func waitUntil(
	environments api.EnvironmentServiceClient, name string, isReached func(*api.Environment) (bool, error),
) (*api.Environment, error) {
	ctx, cancel := context.WithTimeout(context.Background(), waitTime)
	defer cancel()
	revision := ""
	for {
		reached, err := follow(ctx, environments, name, &revision, isReached)
		switch {
		case err == nil:
			return reached, nil
		case status.Code(err) == codes.OutOfRange:
			// Control was started again, or that is too long ago: everything is told anew.
			revision = ""
		case !errors.Is(err, io.EOF) && !passes(err), ctx.Err() != nil:
			return nil, err
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// follow reads one stream: a snapshot unless it goes on from a revision, and then every change.
func follow(
	ctx context.Context, environments api.EnvironmentServiceClient, name string, revision *string,
	isReached func(*api.Environment) (bool, error),
) (*api.Environment, error) {
	request := &api.WatchEnvironmentsRequest{
		Filter:             &api.EnvironmentFilter{Names: []string{name}},
		ResumeFromRevision: *revision,
	}
	stream, err := environments.WatchEnvironments(ctx, request)
	if err != nil {
		return nil, err
	}
	var seen *api.Environment
	isComplete := *revision != ""
	for {
		message, err := stream.Recv()
		if err != nil {
			return nil, err
		}
		switch {
		case message.GetChanged() != nil:
			seen = message.GetChanged()
		case message.GetRemoved() != nil:
			seen = nil
		case isComplete:
			continue // Nothing was missed.
		default:
			isComplete = true
		}
		if !isComplete {
			continue
		}
		if message.Revision != "" {
			*revision = message.Revision
		}
		if reached, err := isReached(seen); reached || err != nil {
			return seen, err
		}
	}
}

func isCurrent(environment *api.Environment) (bool, error) {
	if environment == nil {
		return false, errors.New("somebody removed it meanwhile")
	}
	return environment.Status.GetInitialization() == api.Initialization_INITIALIZATION_CURRENT, nil
}

// isRotated looks at condition KeyRotation: unknown while the new key is tried, then true or false.
func isRotated(begun *api.Environment) func(*api.Environment) (bool, error) {
	return func(environment *api.Environment) (bool, error) {
		if environment == nil {
			return false, errors.New("somebody removed it meanwhile")
		}
		condition := rotation(environment)
		switch {
		case condition == nil:
			// It was the key in force already, or the new one has been put in force.
			return rotation(begun) == nil || environment.Generation > begun.Generation, nil
		case condition.Status == api.ConditionStatus_CONDITION_STATUS_FALSE:
			return false, fmt.Errorf("the new key was refused (%s): %s", condition.Reason, condition.Message)
		default:
			return condition.Status == api.ConditionStatus_CONDITION_STATUS_TRUE, nil
		}
	}
}

func rotation(environment *api.Environment) *api.Condition {
	for _, condition := range environment.Status.GetConditions() {
		if condition.Type == "KeyRotation" {
			return condition
		}
	}
	return nil
}

// passes tells whether the same may succeed a little later.
func passes(err error) bool {
	code := status.Code(err)
	isLost := code == codes.Unavailable || code == codes.DeadlineExceeded
	refusal := reason(err)
	return isLost && (refusal == "" || refusal == "SHUTTING_DOWN")
}

// reason is why control refused something: a word of docs/errors.md. Empty: it was not control that refused.
func reason(err error) string {
	for _, detail := range status.Convert(err).Details() {
		if info, ok := detail.(*errdetails.ErrorInfo); ok && info.Domain == "flotilla" {
			return info.Reason
		}
	}
	return ""
}
