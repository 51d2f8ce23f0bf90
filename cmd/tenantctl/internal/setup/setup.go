package setup

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/smarteros/deaddrop/agent/session"
	"github.com/smarteros/deaddrop/cmd/tenantctl/internal/keys"
	"github.com/smarteros/deaddrop/cmd/tenantctl/internal/vault"
)

// Options say what is wanted.
type Options struct {
	// Check only looks. Nothing is written, neither to Vault nor to a file.
	Check bool
	// Wait is how long Vault may take until it answers.
	Wait time.Duration
	// Init is how a new Vault is initialised, nil if it is not to be.
	Init *Init
	// Unseal says that a sealed Vault is unsealed with Keys.
	Unseal bool
	// Keys opens the keys of a Vault that was initialised before; nil if there are
	// none.
	Keys func() (*keys.File, error)
	// TokenGiven says that the client's token was given for this run, and not only
	// found in a file.
	TokenGiven bool
	// AuditFile is where the server writes its audit log, "" for none.
	AuditFile string
	// Demo adds an example tenant.
	Demo bool
	// Credentials is the folder for the credentials of services, "" for none.
	Credentials string
	Admin       Admin

	// Waiting is told once why Vault cannot be asked yet.
	Waiting func(error)
	// Report is told of each step when it is done.
	Report func(Step)
}

// Setup is a run.
type Setup struct {
	Options
	v     *vault.Client
	fresh *keys.Set // of an initialisation in this run
	file  *keys.File
}

// New prepares a run.
func New(v *vault.Client, o Options) *Setup { return &Setup{Options: o, v: v} }

// Fresh are the keys, if this run has initialised Vault.
func (s *Setup) Fresh() *keys.Set { return s.fresh }

// Run does all steps, up to the first that fails.
func (s *Setup) Run(ctx context.Context) error {
	status, err := s.wait(ctx)
	if err != nil {
		return err
	}
	if !status.Initialized && s.Check {
		s.reportNew()
		return nil
	}
	if err := s.open(ctx, status); err != nil {
		if errors.Is(err, errStaysSealed) {
			return nil
		}
		return err
	}
	if err := s.authorise(ctx); err != nil {
		return err
	}
	for _, t := range s.tasks() {
		step, err := s.perform(ctx, t)
		s.Report(step)
		if err != nil {
			return fmt.Errorf("%s: %w", t.name, err)
		}
	}
	return nil
}

func (s *Setup) tasks() []task {
	var all []task
	if s.AuditFile != "" { // First, so that it has all the others.
		all = append(all, s.audit(), s.rawAudit())
	}
	all = append(append(all, s.engine()), s.policies()...)
	all = append(all, s.auth("approle"), s.role(), s.auth("userpass"), s.admin())
	if s.Demo {
		all = append(all, s.demo()...)
	}
	if s.Credentials != "" {
		all = append(all, s.roleIDFile(), s.secretIDFile())
	}
	return all
}

// reportNew tells what a Vault that has nothing needs: everything.
func (s *Setup) reportNew() {
	s.Report(Step{Name: stepInit, Status: Create})
	s.Report(Step{Name: stepUnseal, Status: Change})
	for _, t := range s.tasks() {
		if t.apply != nil {
			s.Report(Step{Name: t.name, Status: Create})
		}
	}
}

// authorise sees to the client's token.
func (s *Setup) authorise(ctx context.Context) error {
	token, err := s.token(ctx)
	if err != nil {
		return err
	}
	s.v, err = s.v.With(token)
	return err
}

func (s *Setup) token(ctx context.Context) (string, error) {
	given := s.v.API().Token()
	switch {
	case s.fresh != nil && s.fresh.RootTokenPGP:
		return "", fmt.Errorf("the root token is encrypted with PGP: let its owner decrypt it, set VAULT_TOKEN to it, and run setup again: %w", session.ErrDenied)
	case s.fresh != nil:
		return s.fresh.RootToken, nil
	case given != "" && (s.TokenGiven || s.Keys == nil || s.works(ctx)):
		return given, nil
	case s.Keys == nil:
		return "", errNoToken
	}
	file, err := s.keysFile()
	switch {
	case err != nil && given != "":
		return given, nil // Whatever it is good for.
	case err != nil:
		return "", fmt.Errorf("there is no token in VAULT_TOKEN or ~/.vault-token, and none from the keys file: %w", err)
	case file.RootToken == "" || file.RootTokenPGP:
		if given != "" {
			return given, nil
		}
		return "", errNoToken
	}
	return file.RootToken, nil
}

var errNoToken = vault.Errorf(session.ErrDenied, `there is no token: set VAULT_TOKEN, log in with "tenantctl login", or name a --keys-file with a root token in it`)

// works tells whether the client's token is one of this Vault.
func (s *Setup) works(ctx context.Context) bool {
	_, err := s.v.Read(ctx, "auth/token/lookup-self", nil)
	return !errors.Is(err, session.ErrDenied)
}

func (s *Setup) keysFile() (*keys.File, error) {
	if s.file != nil {
		return s.file, nil
	}
	file, err := s.Keys()
	s.file = file
	return file, err
}
