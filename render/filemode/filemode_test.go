package filemode

import (
	"io/fs"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestParse_ReadsOctalDigits(t *testing.T) {
	for text, want := range map[string]fs.FileMode{
		"0640": 0o640, "640": 0o640, "0440": 0o440, "0400": 0o400, "0660": 0o660, "0755": 0o755, "0420": 0o420, "00600": 0o600,
	} {
		mode, err := Parse(text, File)
		require.NoError(t, err, text)
		assert.Equal(t, want, mode, text)
	}
}

func TestParse_SuggestsWhatWasMeant(t *testing.T) {
	for text, want := range map[string]string{
		"":      `"" is not a file mode; write one such as "0600" or "0440"`,
		"rw":    `"rw" is not a file mode; write one such as "0600" or "0440"`,
		"4755":  `"4755" is not a file mode; write one such as "0600" or "0440"`,
		"-1":    `"-1" is not a file mode; write one such as "0600" or "0440"`,
		"0":     `"0" lets nobody read the file; write "0600"`,
		"0000":  `"0000" lets nobody read the file; write "0600"`,
		"0777":  `"0777" lets every user write to the file; write "0640"`,
		"0666":  `"0666" lets every user write to the file; write "0640"`,
		"0416":  `"0416" lets every user write to the file; write "0640"`,
		"0040":  `"0040" does not let the owner read the file; write "0440"`,
		"0222":  `"0222" does not let the owner read the file; write "0620"`,
		"416":   `"416" is read as octal digits, but looks like the decimal number for mode 0640; write "0640"`,
		"420":   `"420" is read as octal digits, but looks like the decimal number for mode 0644; write "0644"`,
		"384":   `"384" is read as octal digits, but looks like the decimal number for mode 0600; write "0600"`,
		"00416": `"00416" lets every user write to the file; write "0640"`,
	} {
		_, err := Parse(text, File)
		require.EqualError(t, err, want)
	}
}

func TestFromNumber_ReadsDecimalNumbers(t *testing.T) {
	for n, want := range map[int64]fs.FileMode{
		416: 0o640, 420: 0o644, 288: 0o440, 292: 0o444, 256: 0o400, 384: 0o600, 432: 0o660, 436: 0o664, 448: 0o700, 488: 0o750, 493: 0o755,
	} {
		mode, err := FromNumber(n, File)
		require.NoError(t, err, n)
		assert.Equal(t, want, mode, n)
	}
}

func TestFromNumber_SuggestsWhatWasMeant(t *testing.T) {
	for n, want := range map[int64]string{
		0:    `0 lets nobody read the file; write "0600"`,
		-1:   `-1 is not a file mode; write one such as "0600" or "0440"`,
		640:  `640 is a decimal number, for mode 1200; write "0640"`,
		600:  `600 is a decimal number, for mode 1130; write "0600"`,
		440:  `440 is a decimal number, for mode 0670; write "0440"`,
		444:  `444 is a decimal number, for mode 0674; write "0444"`,
		500:  `500 is a decimal number, for mode 0764; write "0500"`,
		400:  `400 is a decimal number, for mode 0620; write "0400"`,
		511:  `511, the decimal number for mode 0777, lets every user write to the file; write "0640"`,
		438:  `438, the decimal number for mode 0666, lets every user write to the file; write "0640"`,
		32:   `32, the decimal number for mode 0040, does not let the owner read the file; write "0440"`,
		9999: `9999 is not a file mode, as a number is decimal; write one such as "0600" or "0440"`,
	} {
		_, err := FromNumber(n, File)
		require.EqualError(t, err, want)
	}
}

func TestSocket_MayBeOpenToAllButNotClosedToItsOwner(t *testing.T) {
	mode, err := Parse("0666", Socket)
	require.NoError(t, err)
	assert.Equal(t, fs.FileMode(0o666), mode)
	_, err = Parse("0060", Socket)
	require.EqualError(t, err, `"0060" does not let the owner connect; write "0660"`)
	_, err = FromNumber(660, Socket)
	require.EqualError(t, err, `660 is a decimal number, for mode 1224; write "0660"`)
}

// Vault Agent's users write these modes as numbers.
func TestFromNumber_TakesTheNumbersOfCommonModes(t *testing.T) {
	for _, mode := range []fs.FileMode{0o400, 0o440, 0o444, 0o500, 0o550, 0o555, 0o600, 0o640, 0o644, 0o660, 0o664, 0o700, 0o740, 0o750, 0o755, 0o770, 0o775} {
		got, err := FromNumber(int64(mode), File)
		require.NoError(t, err, mode)
		assert.Equal(t, mode, got)
	}
}
