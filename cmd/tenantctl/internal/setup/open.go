package setup

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"filippo.io/age"
	"github.com/hashicorp/vault/api"

	"github.com/smarteros/deaddrop/agent/plural"
	"github.com/smarteros/deaddrop/agent/session"
	"github.com/smarteros/deaddrop/cmd/tenantctl/internal/keys"
)

const (
	stepInit   = "Vault is initialised"
	stepUnseal = "Vault is unsealed"
)

// Init says how a new Vault is initialised.
type Init struct {
	Shares, Threshold int
	// PGPKeys encrypt the keys, one each, and RootTokenPGPKey the root token. They are
	// as [keys.PGPKey] gives them.
	PGPKeys         []string
	RootTokenPGPKey string
	// File is where the keys go. It must not be there yet.
	File string
	// Recipients are those that the file is encrypted to, and RecipientKeys the same
	// as text. Without them it is plain.
	Recipients    []age.Recipient
	RecipientKeys []string
}

// roomForKey is more than a key takes in a file, in bytes, encrypted or not.
const roomForKey = 8 << 10

// once returns a client that tries each request one time only.
func (s *Setup) once() (*api.Client, error) {
	client, err := s.v.API().CloneWithHeaders()
	if err != nil {
		return nil, err
	}
	client.SetMaxRetries(0)
	client.ClearToken() // None of these requests needs one.
	return client, nil
}

// wait asks Vault for its state until it answers.
func (s *Setup) wait(ctx context.Context) (status *api.SealStatusResponse, err error) {
	client, err := s.once()
	if err != nil {
		return nil, err
	}
	return s.until(ctx, func(ctx context.Context) (*api.SealStatusResponse, error) {
		status, err := client.Sys().SealStatusWithContext(ctx)
		return status, s.v.Explain("asking Vault for its state", err)
	})
}

// until tries f as long as what fails may pass. Its failure is the last that is not
// only that there is no more time.
func (s *Setup) until(ctx context.Context, f func(context.Context) (*api.SealStatusResponse, error)) (status *api.SealStatusResponse, err error) {
	timed, cancel := context.WithTimeout(ctx, s.Wait)
	defer cancel()
	if s.Wait <= 0 {
		return f(ctx)
	}
	var last error
	err = session.Retry(timed, slog.New(slog.DiscardHandler), session.IsTransient, func() error {
		var err error
		status, err = f(timed)
		if err != nil && last == nil && session.IsTransient(err) && s.Waiting != nil {
			s.Waiting(err)
		}
		if err != nil && (timed.Err() == nil || last == nil) {
			last = err
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("%w (waited %s)", last, s.Wait)
	}
	return status, nil
}

// open initialises and unseals Vault where that is wanted.
func (s *Setup) open(ctx context.Context, status *api.SealStatusResponse) error {
	step := Step{Name: stepInit, Status: OK}
	if !status.Initialized {
		if err := s.initialise(ctx, status); err != nil {
			return s.failed(stepInit, err)
		}
		step.Status, step.Detail = Create, s.initDetail(status)
	}
	s.Report(step)
	if !status.Sealed {
		s.Report(Step{Name: stepUnseal, Status: OK})
		return nil
	}
	err := s.unseal(ctx, status)
	if err != nil && !errors.Is(err, errStaysSealed) {
		return s.failed(stepUnseal, err)
	}
	s.Report(Step{Name: stepUnseal, Status: Change})
	return err
}

// errStaysSealed is for a check, which ends there: nothing else is to be seen.
var errStaysSealed = errors.New("it stays sealed")

func (s *Setup) failed(name string, err error) error {
	s.Report(Step{Name: name, Status: Failed, Detail: err.Error()})
	return err
}

func (s *Setup) initDetail(status *api.SealStatusResponse) string {
	kind := "unseal key"
	if status.RecoverySeal {
		kind = "recovery key"
	}
	how := ", readable for its owner"
	switch {
	case len(s.Init.PGPKeys) > 0:
		how = ", each encrypted with PGP"
	case len(s.Init.Recipients) > 0:
		how = ", encrypted with age"
	}
	return fmt.Sprintf("%s, of which %d %s needed, %s in %s%s", plural.Of(s.Init.Shares, kind),
		s.Init.Threshold, plural.Be(s.Init.Threshold), plural.Be(s.Init.Shares), s.Init.File, how)
}

// initialise makes the keys, and has them in a file before it returns.
func (s *Setup) initialise(ctx context.Context, status *api.SealStatusResponse) error {
	if s.Init == nil {
		return sealed(`Vault at %s is not initialised: give --init and --keys-file to do that, or run "vault operator init"`, s.v.Address())
	}
	client, err := s.once()
	if err != nil {
		return err
	}
	file, err := keys.Reserve(s.Init.File, (s.Init.Shares+4)*roomForKey)
	if err != nil {
		return err
	}
	defer file.Abort()
	// From here on nothing interrupts: keys that were made must be written.
	ctx = context.WithoutCancel(ctx)
	made, err := client.Sys().InitWithContext(ctx, s.Init.request(status.RecoverySeal))
	if err != nil {
		return s.initFailed(ctx, err)
	}
	s.fresh = s.Init.set(made, s.v.Address()) // If they cannot be written, they may still be printed.
	if err := file.Write(s.fresh, s.Init.Recipients); err != nil {
		return fmt.Errorf("the keys of the new Vault could not be written to %s: %w; there is nothing in it yet: empty its storage, and begin again", s.Init.File, err)
	}
	return nil
}

// initFailed finds out whether Vault has initialised itself all the same: there are
// keys then, and nobody has them. That is no failure that passes.
func (s *Setup) initFailed(ctx context.Context, err error) error {
	err = s.v.Explain("initialising Vault", err)
	if strings.Contains(err.Error(), "already initialized") { // by someone else, who has the keys
		return err
	}
	client, failed := s.once()
	if failed != nil {
		return errors.Join(err, failed)
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	status, failed := client.Sys().SealStatusWithContext(ctx)
	switch {
	case failed != nil:
		return fmt.Errorf(`%w; whether it has initialised itself is not known: see "tenantctl status". If it has, nobody has its keys: empty its storage, and begin again`, err)
	case status.Initialized:
		return fmt.Errorf("%v; Vault at %s has initialised itself all the same, with keys that nobody has: there is nothing in it yet: empty its storage, and begin again", err, s.v.Address())
	}
	return err
}

// request is for keys that unseal, or for those of a Vault that unseals itself.
func (i *Init) request(recovery bool) *api.InitRequest {
	if recovery {
		return &api.InitRequest{RecoveryShares: i.Shares, RecoveryThreshold: i.Threshold, RecoveryPGPKeys: i.PGPKeys, RootTokenPGPKey: i.RootTokenPGPKey}
	}
	return &api.InitRequest{SecretShares: i.Shares, SecretThreshold: i.Threshold, PGPKeys: i.PGPKeys, RootTokenPGPKey: i.RootTokenPGPKey}
}

func (i *Init) set(made *api.InitResponse, address string) *keys.Set {
	s := &keys.Set{
		Address: address, Keys: made.KeysB64, RootToken: made.RootToken, RootTokenPGP: i.RootTokenPGPKey != "",
		PGP: len(i.PGPKeys) > 0, Recipients: i.RecipientKeys,
	}
	if len(made.KeysB64) > 0 {
		s.Shares, s.Threshold = i.Shares, i.Threshold
	}
	if len(made.RecoveryKeysB64) > 0 {
		s.Recovery, s.RecoveryShares, s.RecoveryThreshold = made.RecoveryKeysB64, i.Shares, i.Threshold
	}
	return s
}

// unseal gives Vault as many keys as it needs, and waits until it serves.
func (s *Setup) unseal(ctx context.Context, status *api.SealStatusResponse) error {
	if status.RecoverySeal { // It unseals itself.
		return s.serves(ctx)
	}
	all, err := s.unsealKeys()
	if err != nil {
		return err
	}
	if s.Check {
		return cmp.Or(s.enough(all, status), errStaysSealed)
	}
	client, err := s.once()
	if err != nil {
		return err
	}
	if status, err = client.Sys().ResetUnsealProcessWithContext(ctx); err != nil {
		return s.v.Explain("unsealing Vault", err)
	}
	if err := s.enough(all, status); err != nil {
		return err
	}
	for _, key := range all[:status.T] {
		if status, err = client.Sys().UnsealWithContext(ctx, key); err != nil {
			return s.unsealFailed(err)
		}
	}
	if status.Sealed {
		return sealed("Vault at %s is still sealed after %s: are some of them the same?", s.v.Address(), plural.Of(status.T, "key"))
	}
	return s.serves(ctx)
}

func (s *Setup) enough(all []string, status *api.SealStatusResponse) error {
	if len(all) < status.T {
		return sealed("Vault at %s is sealed: it takes %s to unseal it, and there %s %d", s.v.Address(), plural.Of(status.T, "key"), plural.Be(len(all)), len(all))
	}
	return nil
}

// unsealFailed says that the keys are wrong, unless Vault has not answered.
func (s *Setup) unsealFailed(err error) error {
	var answer *api.ResponseError
	answered := errors.As(err, &answer)
	if err = s.v.Explain("unsealing Vault", err); !answered {
		return err
	}
	return sealed("these keys do not unseal Vault at %s: are they of another one? (%w)", s.v.Address(), err)
}

func (s *Setup) unsealKeys() ([]string, error) {
	set := s.fresh
	switch {
	case set != nil:
	case !s.Unseal || s.Keys == nil:
		return nil, sealed(`Vault at %s is sealed: give --unseal and a --keys-file, or unseal it with "vault operator unseal"`, s.v.Address())
	default:
		file, err := s.keysFile()
		if err != nil {
			return nil, sealed("Vault at %s is sealed, and there are no keys: %w", s.v.Address(), err)
		}
		set = &file.Set
	}
	if set.PGP {
		return nil, sealed("Vault at %s is sealed: %w", s.v.Address(), keys.ErrPGP)
	}
	return set.Keys, nil
}

// sealedError is an [session.ErrSealed] that says itself what is sealed.
type sealedError struct{ error }

func (e sealedError) Unwrap() []error { return []error{e.error, session.ErrSealed} }

func sealed(format string, args ...any) error { return sealedError{fmt.Errorf(format, args...)} }

// serves waits until Vault is active, or knows who is.
func (s *Setup) serves(ctx context.Context) error {
	client, err := s.once()
	if err != nil {
		return err
	}
	const op = "waiting for Vault to serve"
	timed := *s
	timed.Wait = max(s.Wait, 30*time.Second)
	_, err = timed.until(ctx, func(ctx context.Context) (*api.SealStatusResponse, error) {
		health, err := client.Sys().HealthWithContext(ctx)
		switch {
		case err != nil:
			return nil, s.v.Explain(op, err)
		case health.Sealed:
			return nil, &session.Fault{Op: op, Kind: session.ErrSealed, Transient: true}
		case !health.Standby:
			return nil, nil
		}
		leader, err := client.Sys().LeaderWithContext(ctx)
		if err == nil && leader.LeaderAddress == "" {
			return nil, &session.Fault{Op: op, Kind: session.ErrUnreachable, Detail: "its cluster has no leader", Transient: true}
		}
		return nil, s.v.Explain(op, err)
	})
	return err
}
