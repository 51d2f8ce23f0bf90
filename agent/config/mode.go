package config

import (
	"errors"
	"io/fs"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/convert"

	"github.com/smarteros/deaddrop/render/filemode"
)

// fileMode reads an argument that holds a mode. A text holds octal digits; a number is
// decimal, as for Vault Agent, which reads JSON and HCL 1: there a leading zero makes
// a number octal.
func (l *loader) fileMode(name string, expr hcl.Expression, kind filemode.Kind) (mode fs.FileMode, ok bool) {
	value, diags := expr.Value(l.ctx)
	if l.hcl(diags); diags.HasErrors() {
		return 0, false
	}
	mode, err := l.modeOf(value, expr, kind)
	if err != nil {
		l.at(expr.Range(), "%s %s", name, err)
	}
	return mode, err == nil
}

func (l *loader) modeOf(value cty.Value, expr hcl.Expression, kind filemode.Kind) (fs.FileMode, error) {
	if digits, octal := l.octalLiteral(expr); octal {
		return filemode.Parse(digits, kind)
	}
	if value.Type() == cty.Number && !value.IsNull() {
		n, whole := wholeNumber(value)
		if !whole {
			return 0, errors.New(`is not a file mode; write one such as "0600" or "0440"`)
		}
		return filemode.FromNumber(int64(n), kind)
	}
	text, err := convert.Convert(value, cty.String)
	if err != nil || text.IsNull() {
		return filemode.Parse("", kind)
	}
	return filemode.Parse(text.AsString(), kind)
}

// octalLiteral returns the digits of a number that HCL 1 reads as octal, 0640, and HCL
// 2 as 640.
func (l *loader) octalLiteral(expr hcl.Expression) (digits string, ok bool) {
	if literal, is := expr.(*hclsyntax.LiteralValueExpr); !is || literal.Val.Type() != cty.Number {
		return "", false
	}
	at := expr.Range()
	src := l.sources[at.Filename]
	if !at.CanSliceBytes(src) {
		return "", false
	}
	digits = string(at.SliceBytes(src))
	return digits, len(digits) > 1 && digits[0] == '0' && strings.Trim(digits, "0123456789") == ""
}
