package output

import (
	"bytes"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/smarteros/deaddrop/agent/config"
	"github.com/smarteros/deaddrop/agent/internal/readings"
	"github.com/smarteros/deaddrop/agent/internal/redact"
	"github.com/smarteros/deaddrop/agent/watch"
	"github.com/smarteros/deaddrop/render"
	"github.com/smarteros/deaddrop/render/drop"
	"github.com/smarteros/deaddrop/render/secret"
)

var nexa, smtp = render.Read("secret/nexa"), render.Read("secret/smtp")

// fixture is a table whose readings the test provides, and whose results it publishes.
type fixture struct {
	*Table
	t     *testing.T
	dir   string
	cache *readings.Cache[any]
	log   *bytes.Buffer
}

// inBubble runs a test with a clock of its own.
func inBubble(t *testing.T, test func(f *fixture)) {
	synctest.Test(t, func(t *testing.T) {
		f := &fixture{t: t, dir: t.TempDir(), cache: readings.New[any](), log: &bytes.Buffer{}}
		f.Table = NewTable(f.cache, slog.New(slog.NewTextHandler(f.log, &slog.HandlerOptions{Level: slog.LevelDebug})))
		test(f)
	})
}

// drop is a dotenv drop of one secret.
func (f *fixture) drop(name string) config.Drop {
	d := config.Drop{Name: name, Secret: "secret/" + name, Destination: filepath.Join(f.dir, name+".env"), OnMissing: config.KeepFile}
	d.Format = render.FormatDotenv
	return d
}

// template is a drop with a template.
func (f *fixture) template(name, text string) config.Drop {
	d := f.drop(name)
	template, err := render.Parse(name, text, render.Options{})
	require.NoError(f.t, err)
	d.Secret, d.Format, d.Template = "", render.FormatTemplate, template
	return d
}

func (f *fixture) add(d config.Drop) *Output {
	o := New(d)
	f.Add(o, nil)
	return o
}

// learn has a secret read, and schedules the outputs that it concerns.
func (f *fixture) learn(request render.Request, value string) {
	f.take(request, watch.Reading{Secret: &render.Secret{Data: secret.Of(map[string]any{"KEY": value})}})
}

func (f *fixture) take(request render.Request, reading watch.Reading) {
	for _, user := range f.cache.Learn(watch.Batch{request: reading}) {
		f.Changed(user.(*Output))
	}
}

// publish renders what is due, and takes in that it was written. It returns the contents by
// name.
func (f *fixture) publish() map[string]string {
	contents := map[string]string{}
	for _, r := range f.RenderDue(time.Now()).Ready {
		var outcomes []drop.Outcome
		for _, file := range r.Files {
			contents[file.Drop.Name] = string(file.Content)
			outcomes = append(outcomes, drop.Changed)
			require.NoError(f.t, os.WriteFile(file.Drop.Destination, file.Content, 0o600))
		}
		f.Succeed(r, outcomes)
	}
	return contents
}

// is checks the status of an output, and a part of why it is so.
func (f *fixture) is(o *Output, want Status, why string) {
	f.t.Helper()
	status, reason := o.Status(), o.Reason()
	assert.Equal(f.t, want, status, "%v", reason)
	if why == "" {
		assert.NoError(f.t, reason)
	} else {
		assert.ErrorContains(f.t, reason, why)
	}
}

func TestOutput_WaitsForItsSecret(t *testing.T) {
	inBubble(t, func(f *fixture) {
		o := f.add(f.drop("nexa"))
		f.is(o, Waiting, "")
		assert.Empty(t, f.publish())
		assert.Equal(t, []render.Request{nexa}, f.cache.Unresolved())
		assert.Zero(t, f.NextAttempt(), "nothing is due until the secret is read")
		f.learn(nexa, "one")
		assert.Equal(t, map[string]string{"nexa": "KEY=one\n"}, f.publish())
		f.is(o, Current, "")
		assert.Zero(t, f.NextAttempt())
		assert.True(t, o.IsResolved())
	})
}

func TestOutput_AsksForTheSecretsThatTheLastRenderHasShown(t *testing.T) {
	inBubble(t, func(f *fixture) {
		o := f.add(f.template("both", `{{ with secret "secret/nexa" }}{{ .Data.KEY }}{{ if eq .Data.KEY "more" }}{{ with secret "secret/smtp" }}{{ .Data.KEY }}{{ end }}{{ end }}{{ end }}`))
		f.publish()
		f.learn(nexa, "one")
		assert.Equal(t, map[string]string{"both": "one"}, f.publish())
		assert.Equal(t, []render.Request{nexa}, f.cache.Requests())
		f.learn(nexa, "more")
		assert.Empty(t, f.publish())
		f.is(o, Waiting, "")
		assert.Equal(t, []render.Request{smtp}, f.cache.Unresolved())
		f.learn(smtp, "two")
		assert.Equal(t, map[string]string{"both": "moretwo"}, f.publish())
	})
}

func TestOutput_IsStaleWhileItsSecretCannotBeRead(t *testing.T) {
	inBubble(t, func(f *fixture) {
		o := f.add(f.drop("nexa"))
		f.publish()
		f.learn(nexa, "one")
		f.publish()
		secret := watch.Reading{Secret: &render.Secret{Data: secret.Of(map[string]any{"KEY": "one"})}, Err: errors.New("denied")}
		f.take(nexa, secret)
		f.publish()
		f.is(o, Stale, "denied")
		assert.NoError(t, o.Err(), "the content is the newest that is known")
		assert.Empty(t, f.Errs())
		f.learn(nexa, "one")
		f.publish()
		f.is(o, Current, "")
	})
}

func TestOutput_FailsWithoutAnyVersionOfItsSecret(t *testing.T) {
	inBubble(t, func(f *fixture) {
		o := f.add(f.drop("nexa"))
		f.publish()
		f.take(nexa, watch.Reading{Err: errors.New("denied")})
		assert.Empty(t, f.publish())
		f.is(o, Failed, "denied")
		assert.NotContains(t, f.log.String(), "denied", "it is logged where the secret is read")
		assert.EqualError(t, errors.Join(f.Errs()...), `drop "nexa": denied`)
		assert.False(t, o.HasFile())
		assert.Zero(t, f.NextAttempt())
	})
}

func TestOutput_FailsOnceForTheSameError(t *testing.T) {
	inBubble(t, func(f *fixture) {
		o := f.add(f.template("nexa", `{{ with secret "secret/nexa" }}{{ .Data.NONE }}{{ end }}`))
		f.publish()
		for range 3 {
			f.learn(nexa, "one")
			f.publish()
		}
		f.is(o, Failed, "NONE")
		assert.Equal(t, 1, bytes.Count(f.log.Bytes(), []byte("drop failed, no file written yet")), f.log.String())
	})
}

func TestOutput_KeepsItsFileWhenARenderFails(t *testing.T) {
	inBubble(t, func(f *fixture) {
		o := f.add(f.template("nexa", `{{ with secret "secret/nexa" }}{{ if eq .Data.KEY "bad" }}{{ .Data.NONE }}{{ end }}{{ .Data.KEY }}{{ end }}`))
		f.publish()
		f.learn(nexa, "one")
		f.publish()
		f.learn(nexa, "bad")
		assert.Empty(t, f.publish())
		f.is(o, Stale, "NONE")
		assert.Contains(t, f.log.String(), "drop failed, keeping last good file")
		assert.True(t, o.HasFile())
		assert.Equal(t, []render.Request{nexa}, f.cache.Requests())
		f.learn(nexa, "two")
		assert.Equal(t, map[string]string{"nexa": "two"}, f.publish())
		f.is(o, Current, "")
		assert.Contains(t, f.log.String(), "drop is current again")
	})
}

func TestOutput_IsRemovedWhenItsSecretIsMissing(t *testing.T) {
	inBubble(t, func(f *fixture) {
		d := f.drop("nexa")
		d.OnMissing = config.RemoveFile
		o := f.add(d)
		f.publish()
		f.learn(nexa, "one")
		f.publish()
		f.take(nexa, watch.Reading{Secret: &render.Secret{}, Err: watch.ErrMissing})
		work := f.RenderDue(time.Now())
		require.Equal(t, []*Output{o}, work.Missing)
		assert.Empty(t, work.Ready)

		f.FailRemovalOfMissing(o, errors.New("read-only file system"))
		f.is(o, Stale, "read-only file system")
		assert.Equal(t, time.Now().Add(RetryAfter), f.NextAttempt())
		assert.Empty(t, f.RenderDue(time.Now()).Missing, "it is not due")
		time.Sleep(RetryAfter)
		require.Equal(t, []*Output{o}, f.RenderDue(time.Now()).Missing)

		f.NoteRemoved(o)
		f.is(o, Removed, "")
		assert.False(t, o.HasFile())
		f.learn(nexa, "two")
		assert.Equal(t, map[string]string{"nexa": "KEY=two\n"}, f.publish())
		f.is(o, Current, "")
	})
}

func TestOutput_KeepsItsFileOrIsFatalWhenItsSecretIsMissing(t *testing.T) {
	for on, fatal := range map[config.OnMissing]bool{config.KeepFile: false, config.Fail: true} {
		inBubble(t, func(f *fixture) {
			d := f.drop("nexa")
			d.OnMissing = on
			o := f.add(d)
			f.publish()
			f.learn(nexa, "one")
			f.publish()
			f.take(nexa, watch.Reading{Secret: &render.Secret{Data: secret.Of(map[string]any{"KEY": "one"})}, Err: watch.ErrMissing})
			f.publish()
			f.is(o, Stale, watch.ErrMissing.Error())
			assert.True(t, o.HasFile())
			assert.Equal(t, fatal, f.Fatal() != nil)
		})
	}
}

func TestOutput_IsAbsentIfItsTenantNeverHadTheSecret(t *testing.T) {
	inBubble(t, func(f *fixture) {
		d := f.drop("nexa")
		d.Key = "demo"
		o := f.add(d)
		f.publish()
		f.take(nexa, watch.Reading{Err: watch.ErrMissing})
		f.publish()
		f.is(o, Absent, "")
		assert.Empty(t, f.Errs())
		assert.True(t, o.IsResolved())
		f.learn(nexa, "one")
		ready := f.RenderDue(time.Now()).Ready
		require.Len(t, ready, 1)
		assert.False(t, ready[0].Files[0].IsFirst, "services have looked for it")
	})
}

func TestOutput_FailsIfItsTenantHadTheSecret(t *testing.T) {
	inBubble(t, func(f *fixture) {
		d := f.drop("nexa")
		d.Key = "demo"
		require.NoError(t, os.WriteFile(d.Destination, nil, 0o600))
		o := f.add(d)
		f.publish()
		f.take(nexa, watch.Reading{Err: watch.ErrMissing})
		f.publish()
		f.is(o, Failed, watch.ErrMissing.Error())
		assert.True(t, o.HasFile(), "of an earlier run")
	})
}

func TestOutput_StaysAsItIsWhenItsTenantDeparts(t *testing.T) {
	inBubble(t, func(f *fixture) {
		d := f.drop("nexa")
		d.Key = "demo"
		o := f.add(d)
		f.publish()
		lease := &watch.Lease{ID: "database/creds/nexa/1"}
		f.take(nexa, watch.Reading{Secret: &render.Secret{Data: secret.Of(map[string]any{"KEY": "one"})}, Life: watch.Life{Lease: lease}})
		f.publish()
		f.Depart([]*Output{o}, time.Now())
		f.is(o, Departed, "")
		assert.Equal(t, []render.Request{nexa}, f.cache.Requests(), "its lease is renewed")
		assert.Equal(t, []*watch.Lease{lease}, o.Content().Leases)
		f.learn(nexa, "two")
		assert.Empty(t, f.publish())
		assert.False(t, o.IsResolved())

		f.FailRemoval(o, errors.New("busy"))
		f.is(o, Departed, "removing the files of a tenant that is gone: busy")
		f.Return([]*Output{o})
		assert.Equal(t, map[string]string{"nexa": "KEY=two\n"}, f.publish())
		f.is(o, Current, "")
	})
}

func TestTable_RetriesAFailedWriteWhenItIsDueAndNotBefore(t *testing.T) {
	inBubble(t, func(f *fixture) {
		o := f.add(f.drop("nexa"))
		f.publish()
		f.learn(nexa, "one")
		require.Len(t, f.RenderDue(time.Now()).Ready, 1)
		f.Fail(o, errors.New("disk full"), RetryAfter)
		f.is(o, Failed, "disk full")
		for range 4 {
			assert.Empty(t, f.RenderDue(time.Now()).Ready, "nothing but time makes it due")
			time.Sleep(RetryAfter / 5)
		}
		time.Sleep(RetryAfter / 5)
		assert.Len(t, f.RenderDue(time.Now()).Ready, 1)
		f.Fail(o, errors.New("disk full"), RetryAfter)
		f.learn(nexa, "two")
		assert.Len(t, f.RenderDue(time.Now()).Ready, 1, "a change is written at once")
		f.Fail(o, errors.New("refused"), 0)
		assert.Zero(t, f.NextAttempt(), "a check would refuse the same content again")
		assert.Equal(t, 2, bytes.Count(f.log.Bytes(), []byte("drop failed, no file written yet")))
	})
}

func TestTable_LogsARefusalAgainIfItsOutputDiffers(t *testing.T) {
	inBubble(t, func(f *fixture) {
		o := f.add(f.drop("nexa"))
		refusal := func(output string) error { return &redact.OutputError{Err: errors.New("refused"), Output: output} }
		for _, output := range []string{"line 1", "line 1", "line 2"} {
			f.Fail(o, refusal(output), 0)
		}
		assert.Equal(t, 2, bytes.Count(f.log.Bytes(), []byte("drop failed")))
	})
}

func TestTable_GathersChanges(t *testing.T) {
	inBubble(t, func(f *fixture) {
		d := f.drop("nexa")
		d.Wait = config.Wait{Min: 2 * time.Second, Max: 5 * time.Second}
		f.add(d)
		f.publish()
		f.learn(nexa, "one")
		assert.Len(t, f.publish(), 1, "the first content is written at once")
		begun := time.Now()
		for range 4 {
			f.learn(nexa, "two")
			assert.Equal(t, min(2*time.Second, 5*time.Second-time.Since(begun)), time.Until(f.NextAttempt()))
			time.Sleep(1500 * time.Millisecond)
			if time.Since(begun) < 5*time.Second {
				assert.Empty(t, f.publish())
			}
		}
		assert.Len(t, f.publish(), 1)
		assert.Zero(t, f.NextAttempt())
		f.learn(nexa, "three")
		time.Sleep(2 * time.Second)
		assert.Len(t, f.publish(), 1)
	})
}

func TestTable_DoesNotPutOffARetryForChanges(t *testing.T) {
	inBubble(t, func(f *fixture) {
		d := f.drop("nexa")
		d.Wait = config.Wait{Min: time.Minute, Max: time.Hour}
		o := f.add(d)
		f.publish()
		f.learn(nexa, "one")
		f.publish()
		f.Fail(o, errors.New("disk full"), RetryAfter)
		f.learn(nexa, "two")
		assert.Equal(t, RetryAfter, time.Until(f.NextAttempt()))
	})
}

// ofSet returns two drops of a set.
func (f *fixture) ofSet() (a, b config.Drop) {
	set := &config.Set{Name: "tls", Folder: f.dir}
	a, b = f.drop("nexa"), f.drop("smtp")
	a.Set, b.Set = set, set
	return a, b
}

func TestGroup_RendersASetTogether(t *testing.T) {
	inBubble(t, func(f *fixture) {
		a, b := f.ofSet()
		first, second := f.add(a), f.add(b)
		f.publish()
		f.learn(nexa, "one")
		assert.Empty(t, f.publish(), "the other secret is not read yet")
		f.is(first, Waiting, "")
		f.learn(smtp, "one")
		assert.Len(t, f.publish(), 2)
		f.learn(smtp, "two")
		assert.Equal(t, map[string]string{"nexa": "KEY=one\n", "smtp": "KEY=two\n"}, f.publish())

		f.take(smtp, watch.Reading{Err: errors.New("denied")})
		assert.Empty(t, f.publish())
		f.is(second, Stale, "denied")
		f.is(first, Stale, `it changes together with set "tls", and "smtp" has failed: denied`)
		assert.EqualError(t, errors.Join(f.Errs()...), `drop "smtp": denied`, "a failure of the group is there once")
		f.learn(smtp, "three")
		assert.Len(t, f.publish(), 2)
		f.is(first, Current, "")
	})
}

func TestGroup_OfASetIsAbsentOnlyAsAWhole(t *testing.T) {
	inBubble(t, func(f *fixture) {
		a, b := f.ofSet()
		a.Key, b.Key = "demo", "demo"
		first, second := f.add(a), f.add(b)
		f.publish()
		f.take(nexa, watch.Reading{Err: watch.ErrMissing})
		f.learn(smtp, "one")
		assert.Empty(t, f.publish())
		f.is(first, Absent, "")
		f.is(second, Absent, "")
	})
}

func TestGroup_HoldsAllVariables(t *testing.T) {
	inBubble(t, func(f *fixture) {
		var outputs []*Output
		for _, name := range []string{"nexa", "smtp"} {
			d := f.template(name, `{{ with secret "secret/`+name+`" }}{{ .Data.KEY }}{{ end }}`)
			o := NewVariable(config.EnvTemplate{Name: name, Template: d.Template}, config.Wait{})
			outputs = append(outputs, o)
			f.Add(o, nil)
		}
		f.add(f.drop("other"))
		f.publish()
		f.learn(nexa, "one")
		assert.Empty(t, f.RenderDue(time.Now()).Ready)
		f.learn(smtp, "two")
		ready := f.RenderDue(time.Now()).Ready
		require.Len(t, ready, 1)
		assert.True(t, ready[0].Group().IsEnvironment())
		assert.Len(t, ready[0].Files, 2)
		f.Fail(outputs[0], errors.New("too large"), 0)
		assert.Contains(t, f.log.String(), "variable failed, command not started yet")
		f.is(outputs[1], Failed, `it changes together with the other variables, and "nexa" has failed: too large`)
	})
}

func TestTable_SchedulesOutputsWhoseFilesHaveChanged(t *testing.T) {
	inBubble(t, func(f *fixture) {
		path := filepath.Join(f.dir, "input")
		require.NoError(t, os.WriteFile(path, []byte("one"), 0o600))
		f.add(f.template("nexa", `{{ file "`+path+`" }}`))
		assert.Equal(t, map[string]string{"nexa": "one"}, f.publish())
		f.NoteChangedFiles()
		assert.Zero(t, f.NextAttempt())
		require.NoError(t, os.WriteFile(path, []byte("two-and-longer"), 0o600))
		f.NoteChangedFiles()
		assert.Equal(t, map[string]string{"nexa": "two-and-longer"}, f.publish())
	})
}

func TestTable_ResumesTheOutputsOfAnEarlierConfiguration(t *testing.T) {
	inBubble(t, func(f *fixture) {
		o := f.add(f.drop("nexa"))
		f.publish()
		f.learn(nexa, "one")
		f.publish()
		since := time.Now()
		time.Sleep(time.Hour)
		f.Reset("", "")
		assert.Empty(t, f.cache.Requests())
		next := New(o.Drop)
		f.Add(next, o)
		f.is(next, Current, "")
		at := next.Since()
		assert.Equal(t, since, at)
		assert.Equal(t, []render.Request{nexa}, f.cache.Requests())
		work := f.RenderDue(time.Now())
		require.Len(t, work.Ready, 1, "the configuration may want another content")
		assert.False(t, work.Ready[0].Files[0].IsFirst)
		f.Succeed(work.Ready[0], []drop.Outcome{drop.Unchanged})
		at = next.Since()
		assert.Equal(t, since, at, "nothing has changed")
		assert.Equal(t, since, next.Content().Written)
	})
}

func TestTable_GathersChangesAcrossConfigurations(t *testing.T) {
	inBubble(t, func(f *fixture) {
		d := f.drop("nexa")
		d.Wait = config.Wait{Min: 2 * time.Second, Max: 5 * time.Second}
		o := f.add(d)
		f.publish()
		f.learn(nexa, "one")
		f.publish()
		f.learn(nexa, "two")
		time.Sleep(time.Second)
		f.Reset("", "")
		f.Add(New(d), o)
		assert.Equal(t, time.Second, time.Until(f.NextAttempt()))
		assert.Empty(t, f.publish())
		time.Sleep(time.Second)
		assert.Len(t, f.publish(), 1)
	})
}

func TestTable_KnowsWhoWritesAPath(t *testing.T) {
	inBubble(t, func(f *fixture) {
		d := f.drop("nexa")
		d.Backup = true
		o := f.add(d)
		assert.Same(t, o, f.Owner(d.Destination))
		assert.Same(t, o, f.Owner(d.Destination+".bak"))
		f.Remove(o)
		assert.Nil(t, f.Owner(d.Destination))
		assert.Empty(t, f.Outputs())
		assert.Empty(t, f.cache.Requests())

		side := filepath.Join(f.dir, "side")
		writer := f.add(f.template("smtp", `{{ "x" | writeToFile "`+side+`" "" "" "0600" }}`))
		f.publish()
		assert.Equal(t, []string{side}, writer.SideFiles())
		assert.True(t, f.WritesSideFile(side, nil))
		assert.False(t, f.WritesSideFile(side, []*Output{writer}))
	})
}

func TestTable_HidesSecretsOnlyIfOutputIsShown(t *testing.T) {
	for shows, want := range map[bool]bool{false: false, true: true} {
		inBubble(t, func(f *fixture) {
			d := f.drop("nexa")
			d.Check = &config.Check{Args: []string{"true"}, ShowOutput: shows}
			f.add(d)
			f.publish()
			f.learn(nexa, "v4lue")
			ready := f.RenderDue(time.Now()).Ready
			require.Len(t, ready, 1)
			assert.Equal(t, want, len(ready[0].Secrets) > 0)
			assert.Equal(t, want, ready[0].ShowsOutput)
		})
	}
}

func TestTable_ForgetsTheLeasesOfACommandThatHasEnded(t *testing.T) {
	inBubble(t, func(f *fixture) {
		d := f.template("nexa", `{{ with secret "secret/nexa" }}{{ .Data.KEY }}{{ end }}`)
		o := NewVariable(config.EnvTemplate{Name: "NEXA", Template: d.Template}, config.Wait{})
		f.Add(o, nil)
		f.RenderDue(time.Now())
		f.take(nexa, watch.Reading{Secret: &render.Secret{Data: secret.Of(map[string]any{"KEY": "one"})}, Life: watch.Life{Lease: &watch.Lease{ID: "1"}}})
		ready := f.RenderDue(time.Now()).Ready
		f.Succeed(ready[0], []drop.Outcome{drop.Unchanged})
		require.Len(t, o.Content().Leases, 1)
		f.EndCommand()
		assert.Empty(t, o.Content().Leases)
	})
}
