package config

import (
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/gohcl"

	"github.com/smarteros/deaddrop/agent/internal/signals"
	"github.com/smarteros/deaddrop/render/dotenv"
	"github.com/smarteros/deaddrop/render/drop"
	"github.com/smarteros/deaddrop/render/filemode"
)

// This file reads what Vault Agent has besides logins and templates, and says
// what of it has no effect here.

// sinkMode is Vault Agent's.
const sinkMode fs.FileMode = 0o640

// global reads the arguments at the top of a file.
func (l *loader) global(all *fileBlock) {
	cfg := l.cfg
	l.supervises = all.Exec != nil
	cfg.Wait = l.wait(all.Wait, Wait{})
	if all.Splay != nil {
		cfg.Splay, _ = l.duration(*all.Splay, all.SplayRange)
	}
	l.strict, l.requireTmpfs = value(all.Strict), value(all.RequireTmpfs)
	cfg.LockMemory = value(all.Mlock)
	cfg.Once, cfg.PIDFile, cfg.LogFile = value(all.ExitAfterAuth), value(all.PIDFile), value(all.LogFile)
	if cfg.StateDir = value(all.StateDir); cfg.StateDir != "" && !filepath.IsAbs(cfg.StateDir) {
		l.at(all.StateDirRange, "state_dir %q is not an absolute path; it begins with /", cfg.StateDir)
	}
	// Vault Agent knows names that slog does not.
	levels := map[string]string{"trace": "debug", "debug": "debug", "info": "info", "notice": "info", "warn": "warn", "warning": "warn", "err": "error", "error": "error"}
	if text := strings.ToLower(value(all.LogLevel)); text != "" {
		if cfg.LogLevel = levels[text]; cfg.LogLevel == "" {
			l.at(all.LogLevelRange, "log_level %q is not known; use debug, info, warn or error", text)
		}
	}
	formats := map[string]string{"standard": "text", "text": "text", "json": "json"}
	if text := strings.ToLower(value(all.LogFormat)); text != "" {
		if cfg.LogFormat = formats[text]; cfg.LogFormat == "" {
			l.at(all.LogFormatRange, "log_format %q is not known; use standard or json", text)
		}
	}
}

func value[T any](p *T) (v T) {
	if p != nil {
		v = *p
	}
	return v
}

// unsupported warns of what has no effect, once each.
func (l *loader) unsupported(all *fileBlock) {
	for name, blocks := range map[string][]ignoredBlock{
		"cache": all.Cache, "api_proxy": all.APIProxy, "telemetry": all.Telemetry,
	} {
		for _, b := range blocks {
			l.warn(b.DefRange, "%s is not supported and has no effect: this agent writes files, and passes no requests on", name)
		}
	}
	l.ignore(all.DisableIdleConnections, "disable_idle_connections", "few connections are kept")
	l.ignore(all.DisableKeepAlives, "disable_keep_alives", "few connections are kept")
	l.ignore(all.DisableMlock, "disable_mlock", "memory is locked where mlock = true says so, and only there")
	for name, expr := range map[string]hcl.Expression{
		"log_rotate_bytes": all.LogRotateBytes, "log_rotate_duration": all.LogRotateDuration, "log_rotate_max_files": all.LogRotateMaxFiles,
	} {
		l.ignore(expr, name, "use logrotate, with copytruncate")
	}
}

func (l *loader) warn(at hcl.Range, format string, args ...any) {
	ps := problems(l.cfg.Warnings)
	ps.at(at, format, args...)
	l.cfg.Warnings = ps
}

// ignore warns of an argument that has no effect.
func (l *loader) ignore(expr hcl.Expression, name, why string) {
	if !isUnset(expr) {
		l.warn(expr.Range(), "%s has no effect: %s", name, why)
	}
}

// sinks reads where the token goes.
func (l *loader) sinks(blocks []sinkBlock) {
	for _, b := range blocks {
		if b.Type != "file" {
			l.at(b.TypeRange, "sink %q is not supported; use \"file\"", b.Type)
			continue
		}
		for name, expr := range map[string]hcl.Expression{"wrap_ttl": b.WrapTTL, "dh_type": b.DHType, "dh_path": b.DHPath, "aad": b.AAD, "aad_env_var": b.AADEnvVar, "derive_key": b.DeriveKey} {
			if !isUnset(expr) {
				l.at(expr.Range(), "%s is not supported: who reads the sink would get a plain token instead; take it out", name)
			}
		}
		m := methodBlock{Type: "file", DefRange: b.DefRange, ConfigMap: b.ConfigMap, ConfigBlock: b.ConfigBlock}
		settings := l.settingsOf("sink", m, []string{"path", "mode", "owner", "uid", "group", "gid"})
		path := settings["path"].value.Reveal()
		if path == "" {
			l.at(b.DefRange, "sink \"file\" lacks a path: write path into its config")
			continue
		}
		sink := Sink{Path: path, Mode: sinkMode}
		if mode, there := settings["mode"]; there {
			sink.Mode, _ = l.fileMode("mode", mode.expr, filemode.File)
		}
		sink.UID = l.sinkOwner(settings, "owner", "uid", drop.UserID)
		sink.GID = l.sinkOwner(settings, "group", "gid", drop.GroupID)
		l.claim(path, b.DefRange)
		l.cfg.Sinks = append(l.cfg.Sinks, sink)
	}
}

// sinkOwner reads the owner or the group of a sink, which Vault Agent and OpenBao Agent
// call by different names.
func (l *loader) sinkOwner(settings map[string]setting, ofVault, ofOpenBao string, lookup func(string) (int, error)) *int {
	first, isVault := settings[ofVault]
	second, isOpenBao := settings[ofOpenBao]
	switch {
	case isVault && isOpenBao:
		l.at(second.at, "%s and %s exclude each other", ofVault, ofOpenBao)
	case isVault:
		return l.id(first.value.Reveal(), first.at, lookup)
	case isOpenBao:
		return l.id(second.value.Reveal(), second.at, lookup)
	}
	return nil
}

// supervise reads the command that is run with secrets in its environment.
func (l *loader) supervise(b *superviseBlock, env []envTemplateBlock) {
	if b == nil {
		if len(env) > 0 {
			l.at(env[0].DefRange, "env_template needs an exec block, the command that gets the variable")
		}
		return
	}
	s := &Supervise{Exec: Exec{Args: l.command(b.Command), StopSignal: syscall.SIGTERM, Grace: DefaultStopGrace, Restart: true}}
	switch b.Restart {
	case "", "always":
	case "never":
		s.Restart = false
	default:
		l.at(b.RestartRange, "restart_on_secret_changes %q is not known; use \"always\" or \"never\"", b.Restart)
	}
	if b.StopSignal != "" {
		sig, err := signals.Parse(b.StopSignal)
		if err != nil {
			l.at(b.StopSignalRange, "%s", err)
		}
		s.StopSignal = sig
	}
	if b.ReloadSignal != "" {
		sig, err := signals.Parse(b.ReloadSignal)
		if err != nil {
			l.at(b.ReloadSignalRange, "%s", err)
		}
		if b.Restart != "" {
			l.at(b.ReloadSignalRange, "reload_signal and restart_on_secret_changes exclude each other")
		}
		s.ReloadSignal = sig
	}
	for name, expr := range map[string]hcl.Expression{"child_process_stdout": b.Stdout, "child_process_stderr": b.Stderr} {
		l.ignore(expr, name, "the command writes to where the agent writes")
	}
	if b.KillTimeout != "" {
		s.Grace, _ = l.duration(b.KillTimeout, b.KillTimeoutRange)
	}
	if len(env)+len(l.cfg.Drops)+len(l.cfg.Each) == 0 {
		l.at(b.DefRange, "exec needs an env_template or a file: it runs a command with secrets in its environment; to run one after a file has changed, write the exec block into the template")
	}
	for _, each := range env {
		l.envTemplate(s, each)
	}
	if l.cfg.Once {
		l.warn(b.DefRange, "exit_after_auth has no effect with exec: the agent ends with the command")
	}
	l.cfg.Supervise = s
}

func (l *loader) envTemplate(s *Supervise, b envTemplateBlock) {
	var body templateBody
	diags := gohcl.DecodeBody(b.Body, l.ctx, &body)
	l.hcl(diags)
	taken := slices.ContainsFunc(s.Env, func(e EnvTemplate) bool { return e.Name == b.Name })
	switch {
	case diags.HasErrors():
		return
	case !dotenv.IsName(b.Name):
		l.at(b.NameRange, "%q is not a variable name (letters, digits and _, not starting with a digit)", b.Name)
		return
	case taken:
		l.at(b.NameRange, "the variable %s is there already", b.Name)
		return
	}
	if t, text := l.template(body, b.DefRange); t != nil {
		s.Env = append(s.Env, EnvTemplate{b.Name, t, body.Source, text})
	}
}
