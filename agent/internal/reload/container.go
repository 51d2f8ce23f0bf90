package reload

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/smarteros/deaddrop/agent/config"
)

// Container signals or restarts containers, through the API of the Docker Engine,
// which Podman has, too.
type Container config.Container

func (c Container) String() string { return config.Container(c).String() }

// whom names the containers.
func (c Container) whom() string { return config.Container(c).Containers() }

// Do tells every container that is meant and running. Those that were started
// after the change have seen it, and those that do not run will see it.
func (c Container) Do(ctx context.Context, change Change) error {
	limit, cancel := limited(ctx, c.Timeout)
	defer cancel()
	err := c.tell(limit, change)
	if timedOut(ctx, limit) && err != nil {
		return fmt.Errorf("%s: no answer from Docker within %v", c, c.Timeout)
	}
	return err
}

func (c Container) tell(ctx context.Context, change Change) error {
	docker, err := newDocker(ctx, c.Host)
	if err != nil {
		return err
	}
	defer docker.close()
	found, err := c.find(ctx, docker)
	if err != nil {
		return err
	}
	var unneeded *Unneeded
	var errs []error
	told := 0
	for _, each := range found {
		err := c.tellOne(ctx, docker, each, change)
		if err == nil {
			told++
		} else if !errors.As(err, &unneeded) {
			errs = append(errs, err)
		}
	}
	if told == 0 && len(errs) == 0 && unneeded != nil {
		return unneeded
	}
	return errors.Join(errs...)
}

func (c Container) tellOne(ctx context.Context, docker *docker, id string, change Change) error {
	var is container
	if err := docker.get(ctx, "/containers/"+url.PathEscape(id)+"/json", nil, &is); err != nil {
		return gone(err, c.whom())
	}
	switch name := strings.TrimPrefix(is.Name, "/"); {
	case !is.State.Running:
		return &Unneeded{fmt.Sprintf("container %s is not running (%s); it will see the change when it starts", name, is.State.Status)}
	case is.State.Paused && c.Signal != 0:
		return fmt.Errorf("container %s is paused", name)
	case docker.local && time.Since(is.State.StartedAt) > 0 && change.precedes(time.Since(is.State.StartedAt)):
		return &Unneeded{fmt.Sprintf("container %s was started after the change", name)}
	}
	// The id, since a name may pass to another container meanwhile.
	if c.Signal == 0 {
		return gone(docker.post(ctx, "/containers/"+is.ID+"/restart", nil), c.whom())
	}
	return gone(docker.post(ctx, "/containers/"+is.ID+"/kill", url.Values{"signal": {fmt.Sprint(int(c.Signal))}}), c.whom())
}

// gone says in our words that there is no such container.
func gone(err error, whom string) error {
	var answer *apiError
	if errors.As(err, &answer) && (answer.status == http.StatusNotFound || answer.status == http.StatusConflict) {
		return absent("there is no %s that runs: %s", whom, answer.message)
	}
	return err
}

// Check tells of an API that cannot be reached or used, and of containers that are
// not there.
func (c Container) Check(ctx context.Context) error {
	ctx, cancel := limited(ctx, 10*time.Second)
	defer cancel()
	docker, err := newDocker(ctx, c.Host)
	if err != nil {
		return err
	}
	defer docker.close()
	_, err = c.find(ctx, docker)
	return err
}

// container is what the API tells of one.
type container struct {
	ID, Name string
	State    struct {
		Running, Paused bool
		Status          string
		StartedAt       time.Time
	}
	Config struct{ Labels map[string]string }
}

// The labels that Docker Compose puts on containers.
const (
	projectLabel = "com.docker.compose.project"
	serviceLabel = "com.docker.compose.service"
)

// find returns the ids of the containers that are meant.
func (c Container) find(ctx context.Context, docker *docker) ([]string, error) {
	labels := []string{c.Label}
	switch {
	case c.Name != "":
		id, err := c.named(ctx, docker)
		return []string{id}, err
	case c.Service != "":
		project := c.Project
		if project == "" {
			var err error
			if project, err = ownProject(ctx, docker); err != nil {
				return nil, err
			}
		}
		labels = []string{serviceLabel + "=" + c.Service, projectLabel + "=" + project}
	}
	var found []struct{ ID string }
	if err := docker.get(ctx, "/containers/json", filters(labels), &found); err != nil {
		return nil, err
	}
	if len(found) == 0 {
		return nil, absent("no running container is of %s", strings.TrimPrefix(c.whom(), "containers with "))
	}
	var ids []string
	for _, each := range found {
		ids = append(ids, each.ID)
	}
	slices.Sort(ids)
	return ids, nil
}

// named finds a container by its name. Docker also takes the beginning of an id
// for one, even a single digit, and so would find another container where the
// named one has gone.
func (c Container) named(ctx context.Context, docker *docker) (string, error) {
	var is container
	if err := docker.get(ctx, "/containers/"+url.PathEscape(c.Name)+"/json", nil, &is); err != nil {
		return "", gone(err, c.whom())
	}
	isID := len(c.Name) >= 12 && strings.HasPrefix(is.ID, c.Name)
	if strings.TrimPrefix(is.Name, "/") != strings.TrimPrefix(c.Name, "/") && !isID {
		return "", absent("there is no container %s", c.Name)
	}
	return is.ID, nil
}

// ownProject is the compose project of the agent's own container.
func ownProject(ctx context.Context, docker *docker) (string, error) {
	for _, id := range ownIDs() {
		var own container
		if err := docker.get(ctx, "/containers/"+id+"/json", nil, &own); err == nil && own.Config.Labels[projectLabel] != "" {
			return own.Config.Labels[projectLabel], nil
		}
	}
	return "", errors.New("compose_service is looked for in the compose project of the agent, which is in none: write compose_project = \"…\"")
}

// ownIDs are what may be the id of the container that the agent is in: its host
// name, unless that was chosen, and that in the paths of the files that Docker
// mounts into it. Where it shares the network of another container they are that
// one's, which is of the same project.
func ownIDs() []string {
	var ids []string
	if name, err := os.Hostname(); err == nil && len(name) >= 12 && isHex(name) {
		ids = append(ids, name)
	}
	info, _ := os.ReadFile("/proc/self/mountinfo")
	for _, rest := range strings.Split(string(info), "/containers/")[1:] {
		id, _, _ := strings.Cut(rest, "/")
		if len(id) == 64 && isHex(id) {
			return append(ids, id)
		}
	}
	return ids
}

func isHex(text string) bool { return strings.Trim(text, "0123456789abcdef") == "" }

// dockerHost is where the API is.
func dockerHost(configured string) string {
	return cmp.Or(configured, os.Getenv("DOCKER_HOST"), "unix:///var/run/docker.sock")
}
