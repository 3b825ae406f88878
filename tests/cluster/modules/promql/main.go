// Command promql reads rules and expressions as Prometheus itself does, and names what it would not take.
package main

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"os"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/rulefmt"
	"github.com/prometheus/prometheus/promql/parser"
)

// wanted is what is read from the standard input: a file of rules, and expressions by the places where they stand.
type wanted struct {
	Rules       string            `json:"rules"`
	Expressions map[string]string `json:"expressions"`
}

func main() {
	var asked wanted
	if err := json.NewDecoder(os.Stdin).Decode(&asked); err != nil {
		fmt.Println("standard input:", err)
		os.Exit(2)
	}
	// What a Prometheus takes as it comes, without experiments.
	reader := parser.NewParser(parser.Options{})
	faults := 0
	rules := 0
	// With its strictness: an unknown field, a bad duration, a template that does not render.
	groups, errs := rulefmt.Parse([]byte(asked.Rules), false, model.UTF8Validation, reader, slog.New(slog.DiscardHandler))
	for _, err := range errs {
		fmt.Println("rules:", err)
		faults++
	}
	if groups != nil {
		for _, group := range groups.Groups {
			rules += len(group.Rules)
		}
	}
	for place, expression := range asked.Expressions {
		if _, err := reader.ParseExpr(expression); err != nil {
			fmt.Printf("%s: %v\n", place, err)
			faults++
		}
	}
	fmt.Printf("%d rules, %d expressions, %d faults\n", rules, len(asked.Expressions), faults)
	if faults > 0 {
		os.Exit(1)
	}
}
