//go:build !linux

package drop

// isMount is not known here.
func (d *folder) isMount(string) bool { return false }

// onDisk is not known here.
func onDisk(string) bool { return false }
