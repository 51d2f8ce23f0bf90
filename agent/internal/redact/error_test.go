package redact

import (
	"errors"
	"fmt"
	"io/fs"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestError_HidesValuesAndKeepsTheCause(t *testing.T) {
	cause := fmt.Errorf("common name m4rker-value not allowed: %w", fs.ErrPermission)
	err := Error(cause, []string{"m4rker-value"})
	require.EqualError(t, err, "common name [redacted] not allowed: permission denied")
	require.ErrorIs(t, err, fs.ErrPermission)
	assert.Equal(t, cause, Error(cause, []string{"another value"}))
	require.NoError(t, Error(nil, nil))
	require.EqualError(t, Error(errors.New("x"), nil), "x")
}
