// Evaluates the cases of a file with the LaunchDarkly SDK for Go; see ../README.md for the interface.
package main

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"log"
	"os"
	"time"

	"github.com/launchdarkly/go-sdk-common/v3/ldcontext"
	"github.com/launchdarkly/go-sdk-common/v3/ldreason"
	"github.com/launchdarkly/go-sdk-common/v3/ldvalue"
	ld "github.com/launchdarkly/go-server-sdk/v7"
	"github.com/launchdarkly/go-server-sdk/v7/interfaces"
	"github.com/launchdarkly/go-server-sdk/v7/ldcomponents"
)

const initializationTime = 10 * time.Second

type testCase struct {
	Flag    string            `json:"flag"`
	Context ldcontext.Context `json:"context"`
	Default ldvalue.Value     `json:"default"`
}

type fixture struct {
	AllFlagsContext ldcontext.Context `json:"allFlagsContext"`
	Cases           []testCase        `json:"cases"`
}

type result struct {
	Flag      string              `json:"flag"`
	Value     ldvalue.Value       `json:"value"`
	Variation ldvalue.OptionalInt `json:"variation"`
	Reason    string              `json:"reason"`
}

type allFlags struct {
	Valid  bool                     `json:"valid"`
	Values map[string]ldvalue.Value `json:"values"`
}

type evaluation struct {
	Cases    []result `json:"cases"`
	AllFlags allFlags `json:"allFlags"`
}

type options struct {
	mode, redisURL, prefix, base, stream, sdkKey, cases string
	tls                                                 tlsFiles
	sentinelPassword                                    string
	interactive                                         bool
}

func parseOptions() options {
	var o options
	flag.StringVar(&o.mode, "mode", "", "daemon, direct or writer")
	flag.StringVar(&o.redisURL, "redis-url", "", "")
	flag.StringVar(&o.prefix, "prefix", "", "")
	flag.StringVar(&o.tls.ca, "tls-ca", "", "")
	flag.StringVar(&o.tls.cert, "tls-cert", "", "")
	flag.StringVar(&o.tls.key, "tls-key", "", "")
	flag.StringVar(&o.sentinelPassword, "sentinel-password", "", "")
	flag.StringVar(&o.base, "base", "", "")
	flag.StringVar(&o.stream, "stream", "", "")
	flag.StringVar(&o.sdkKey, "sdk-key", "sdk-reader", "")
	flag.StringVar(&o.cases, "cases", "", "")
	flag.BoolVar(&o.interactive, "interactive", false, "")
	flag.Parse()
	return o
}

func makeClient(o options) *ld.LDClient {
	config := ld.Config{Events: ldcomponents.NoEvents(), DiagnosticOptOut: true}
	if o.mode != "direct" {
		store := dataStore(o).Prefix(o.prefix)
		config.DataStore = ldcomponents.PersistentDataStore(store).NoCaching()
	}
	if o.mode == "daemon" {
		config.DataSource = ldcomponents.ExternalUpdatesOnly()
	} else {
		config.ServiceEndpoints = interfaces.ServiceEndpoints{Streaming: o.stream, Polling: o.base, Events: o.base}
	}
	client, err := ld.MakeCustomClient(o.sdkKey, config, initializationTime)
	if client == nil {
		log.Fatalf("cannot make a client: %v", err)
	}
	if err != nil {
		log.Printf("not initialized: %v", err)
	}
	return client
}

func evaluated(client *ld.LDClient, one testCase) result {
	value, detail, _ := client.JSONVariationDetail(one.Flag, one.Context, one.Default)
	reason := string(detail.Reason.GetKind())
	if detail.Reason.GetKind() == ldreason.EvalReasonError {
		reason += ":" + string(detail.Reason.GetErrorKind())
	}
	return result{Flag: one.Flag, Value: value, Variation: detail.VariationIndex, Reason: reason}
}

func evaluate(client *ld.LDClient, data fixture) evaluation {
	state := client.AllFlagsState(data.AllFlagsContext)
	answer := evaluation{AllFlags: allFlags{Valid: state.IsValid(), Values: state.ToValuesMap()}}
	for _, one := range data.Cases {
		answer.Cases = append(answer.Cases, evaluated(client, one))
	}
	return answer
}

func main() {
	o := parseOptions()
	text, err := os.ReadFile(o.cases)
	if err != nil {
		log.Fatal(err)
	}
	var data fixture
	if err := json.Unmarshal(text, &data); err != nil {
		log.Fatal(err)
	}
	client := makeClient(o)
	defer client.Close()
	input := bufio.NewScanner(os.Stdin)
	for !o.interactive || input.Scan() {
		answer, err := json.Marshal(evaluate(client, data))
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(string(answer))
		if !o.interactive {
			return
		}
	}
}
