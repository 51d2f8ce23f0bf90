package config

import (
	"github.com/smarteros/deaddrop/render/drop"
)

// PIDFileMode is the mode of [Config.PIDFile].
const PIDFileMode = 0o644

// Folders plans the folders that are made: for all files that the configuration knows
// of, whichever of them is written first. The plan is the caller's own.
func (c *Config) Folders() *drop.Plan {
	p := &drop.Plan{}
	for _, d := range c.Drops {
		p.Add(d.File())
	}
	for _, f := range c.Each {
		f.plan(p)
	}
	for _, s := range c.Sinks {
		p.Add(s.File())
	}
	for _, l := range c.Listeners {
		if l.Network == "unix" {
			p.Add(l.file())
		}
	}
	if c.PIDFile != "" {
		p.Add(drop.File{Path: c.PIDFile, Mode: PIDFileMode})
	}
	return p
}

// plan adds the files of all keys, as far as they are known. Else files stand for those
// of any key: the folders that all keys share let in the readers of each.
func (f *ForEach) plan(p *drop.Plan) {
	add := p.Add
	if len(f.Keys) == 0 && f.ownersDiffer {
		add = p.AddMany
	}
	all := f.sample
	for _, key := range f.Keys {
		all = append(all, f.listed[key]...)
	}
	for _, d := range all {
		add(d.File())
	}
}

// File is the file of the token, without its content.
func (s Sink) File() drop.File {
	return drop.File{Path: s.Path, Mode: s.Mode, UID: s.UID, GID: s.GID, CreateDirs: true}
}

// file is the socket as a file. Users who may write to a socket may connect to it.
func (l Listener) file() drop.File {
	return drop.File{Path: l.Address, Mode: l.Mode << 1 & 0o444, UID: l.UID, GID: l.GID}
}
