// Judge the metrics of an AnalysisTemplate with the packages of Argo Rollouts, once.
//
// Reads the address of Prometheus from the first argument, and a list of metrics as JSON from the standard input.
// Writes a JSON object with the phase and the value of each metric.
package main

import (
	"encoding/json"
	"os"

	"github.com/argoproj/argo-rollouts/metricproviders/prometheus"
	"github.com/argoproj/argo-rollouts/pkg/apis/rollouts/v1alpha1"
	"github.com/prometheus/client_golang/api"
	v1 "github.com/prometheus/client_golang/api/prometheus/v1"
	log "github.com/sirupsen/logrus"
)

type judged struct {
	Phase   v1alpha1.AnalysisPhase `json:"phase"`
	Value   string                 `json:"value"`
	Message string                 `json:"message"`
}

func main() {
	var metrics []v1alpha1.Metric
	decoder := json.NewDecoder(os.Stdin)
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&metrics); err != nil {
		log.Fatal(err)
	}
	client, err := api.NewClient(api.Config{Address: os.Args[1]})
	if err != nil {
		log.Fatal(err)
	}
	results := map[string]judged{}
	for _, metric := range metrics {
		provider, err := prometheus.NewPrometheusProvider(v1.NewAPI(client), *log.NewEntry(log.New()), metric)
		if err != nil {
			log.Fatal(err)
		}
		measured := provider.Run(nil, metric)
		results[metric.Name] = judged{measured.Phase, measured.Value, measured.Message}
	}
	if err := json.NewEncoder(os.Stdout).Encode(results); err != nil {
		log.Fatal(err)
	}
}
