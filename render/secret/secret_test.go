package secret

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"log/slog"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const marker = "s3cr3t-marker"

type carrier struct {
	Exported   Value[string]
	unexported Value[string]
	Map        map[string]Value[string]
	Pairs      Value[map[string]any]
}

func sealed() carrier {
	v := Of(marker)
	return carrier{v, v, map[string]Value[string]{"k": v}, Of(map[string]any{"password": marker})}
}

func TestValueIsRedactedUnderEveryVerb(t *testing.T) {
	c := sealed()
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%T", "%p", "%50v", "%!"} {
		for name, thing := range map[string]any{"value": c.Exported, "pointer": &c.Exported, "struct": c, "struct pointer": &c, "slice": []Value[string]{c.Exported}, "map": c.Map, "pairs": c.Pairs} {
			printed := fmt.Sprintf(verb, thing)
			assert.NotContains(t, printed, marker, "%s under %s", name, verb)
			assert.NotContains(t, printed, fmt.Sprintf("%x", marker), "%s under %s", name, verb)
		}
	}
	assert.Equal(t, Redacted, fmt.Sprint(c.Exported))
}

func TestValueIsRedactedInEncoders(t *testing.T) {
	c := sealed()
	asJSON, err := json.Marshal(c)
	require.NoError(t, err)
	assert.NotContains(t, string(asJSON), marker)
	assert.Contains(t, string(asJSON), Redacted)

	asXML, err := xml.Marshal(c.Exported)
	require.NoError(t, err)
	assert.NotContains(t, string(asXML), marker)
}

func TestValueIsRedactedInLogsAndErrors(t *testing.T) {
	c := sealed()
	for name, handler := range map[string]func(*bytes.Buffer) slog.Handler{
		"text": func(b *bytes.Buffer) slog.Handler { return slog.NewTextHandler(b, nil) },
		"json": func(b *bytes.Buffer) slog.Handler { return slog.NewJSONHandler(b, nil) },
	} {
		var out bytes.Buffer
		slog.New(handler(&out)).Error("failed", "value", c.Exported, "struct", c, "pointer", &c,
			"error", errors.Join(fmt.Errorf("wrapped %v", c), fmt.Errorf("%+v", c)))
		assert.NotContains(t, out.String(), marker, name)
		assert.Contains(t, out.String(), Redacted, name)
	}
}

func TestValueSurvivesAPanicUnseen(t *testing.T) {
	defer func() {
		assert.NotContains(t, fmt.Sprint(recover()), marker)
	}()
	panic(sealed())
}

func TestRevealGivesBackWhatWasSealed(t *testing.T) {
	assert.Equal(t, marker, Of(marker).Reveal())
	assert.Equal(t, "", Value[string]{}.Reveal())
	assert.Nil(t, Value[map[string]any]{}.Reveal())
}
