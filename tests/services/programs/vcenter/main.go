// SPDX-License-Identifier: Apache-2.0

// A vCenter on loopback for tests: govmomi's simulator plus what it lacks and a driver needs - the
// service description (WSDL), credentials on /folder, and /lab to bring about trouble.
//
// /lab/fault?method=&path=&operation=&status=&location=&times=&delay_ms=&cut=&lose=&interim=&soap=
//
//	the next `times` requests like that (path: its beginning; operation: of the vSphere API) get
//	this status (and Location), wait first, lose the connection after `cut` bytes of the body, (lose)
//	lose the answer, get an interim answer before it, or (soap) this fault of the vSphere API
//
// /lab/fail?number=&status=&times=  request number so and so from now on gets this status, and so do
//
//	its repetitions, `times` in all (-1: for good)
//
// /lab/count  how many requests there were; /lab/clear: no more faults, and count from 1 again
// /lab/expire  end all sessions
// /lab/datastore?name=&free=&shown=&capacity=&maintenance=inMaintenance&accessible=false
//
//	shown: what it says is free, until somebody calls RefreshDatastore
//
// What PUT, DELETE, 401 and 201 on /folder do follows the documentation and not a real server. A PUT
// makes missing directories and writes in place; tasks are done before the call returns.
package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"flag"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/vmware/govmomi/find"
	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"
)

var (
	listen   = flag.String("listen", "127.0.0.1:0", "loopback address")
	state    = flag.String("state", "", "directory for the datastores, cert.pem, key.pem and url")
	user     = flag.String("user", "lab", "user name")
	password = flag.String("password", "lab-pass", "password")
	stores   = flag.String("datastores", "ds1,ds two", "names")
	folder   = flag.Int("folder", 0, "1: the datacenter is F0/DC0, not DC0")
	idle     = flag.Duration("idle", 0, "end sessions that are idle for so long")
	bare     = flag.Bool("bare", false, "/folder as the simulator has it: no credentials, always 200")
)

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

// A fault answers the next `times` requests that match in its own way.
type fault struct {
	method, path, location string
	operation              string // of the vSphere API
	lose                   bool   // do what is asked for, and lose the connection instead of answering
	soap                   string // name of a fault
	status, times, interim int
	cut                    int64 // close the connection after so many bytes of the body; -1: no
	delay                  time.Duration
}

type lab struct {
	sync.Mutex
	service *simulator.Service
	next    http.Handler
	faults  []*fault
	count   int
	failure failure
	free    map[string]int64 // of datastores that are asked to say so
}

// A failure answers one request, known by its number, and all that are like it.
type failure struct {
	number, status, times int
	key                   string
}

// fails counts a request, and returns the status that it fails with or 0.
func (l *lab) fails(key string) int {
	l.Lock()
	defer l.Unlock()
	l.count++
	f := &l.failure
	if f.number != 0 && l.count == f.number {
		f.key = key
	}
	if f.key == "" || f.key != key || f.times == 0 {
		return 0
	}
	if f.times > 0 {
		f.times--
	}
	return f.status
}

var operation = regexp.MustCompile(`Body>\s*<(?:\w+:)?(\w+)`)

// key tells requests apart: repetitions of one have the same.
func key(r *http.Request) string {
	name := ""
	if r.URL.Path == "/sdk" {
		body, _ := io.ReadAll(r.Body)
		r.Body = io.NopCloser(bytes.NewReader(body))
		if found := operation.FindSubmatch(body); found != nil {
			name = string(found[1])
		}
	}
	return r.Method + " " + r.URL.Path + " " + name
}

func (l *lab) take(r *http.Request, key string) *fault {
	l.Lock()
	defer l.Unlock()
	for _, f := range l.faults {
		if f.times > 0 && (f.method == "" || f.method == r.Method) && strings.HasPrefix(r.URL.Path, f.path) &&
			strings.HasSuffix(key, f.operation) {
			f.times--
			return f
		}
	}
	return nil
}

// noted keeps the status and bounds the body for the log and for `cut`.
type noted struct {
	http.ResponseWriter
	status     int
	sent, left int64
	created    bool
}

func (n *noted) WriteHeader(status int) {
	if n.created && status == http.StatusOK {
		status = http.StatusCreated
	}
	n.status = status
	n.ResponseWriter.WriteHeader(status)
}

func (n *noted) Write(data []byte) (int, error) {
	if n.status == 0 {
		n.WriteHeader(http.StatusOK)
	}
	if n.left >= 0 && int64(len(data)) > n.left {
		data = data[:n.left]
	}
	done, err := n.ResponseWriter.Write(data)
	n.sent += int64(done)
	if n.left >= 0 {
		if n.left -= int64(done); n.left == 0 {
			if f, ok := n.ResponseWriter.(http.Flusher); ok {
				f.Flush()
			}
			panic(http.ErrAbortHandler)
		}
	}
	return done, err
}

func (l *lab) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	kind := key(r)
	line := fmt.Sprintf("%s %s length=%d %s range=%q cookie=%t", kind, r.URL.RequestURI(), r.ContentLength,
		strings.Join(r.TransferEncoding, ","), r.Header.Get("Range"), r.Header.Get("Cookie") != "")
	out := &noted{ResponseWriter: w, left: -1}
	defer func() {
		trouble := recover()
		log.Printf("%s -> %d sent=%d cut=%v", line, out.status, out.sent, trouble != nil)
		if trouble != nil {
			panic(trouble)
		}
	}()
	if strings.HasPrefix(r.URL.Path, "/lab/") {
		l.control(out, r)
		return
	}
	if status := l.fails(kind); status != 0 {
		out.WriteHeader(status)
		return
	}
	if f := l.take(r, kind); f != nil {
		time.Sleep(f.delay)
		if f.interim != 0 {
			w.WriteHeader(f.interim)
		}
		if f.soap != "" {
			out.WriteHeader(http.StatusInternalServerError)
			fmt.Fprintf(out, soapFault, f.soap)
			return
		}
		if f.status != 0 {
			if f.location != "" {
				out.Header().Set("Location", f.location)
			}
			out.WriteHeader(f.status)
			return
		}
		if f.lose {
			defer func() { panic(http.ErrAbortHandler) }()
			out = &noted{ResponseWriter: httptest.NewRecorder(), left: -1}
		} else if f.cut >= 0 && r.Method == http.MethodPut {
			r.Body = &short{r.Body, f.cut}
			defer func() { panic(http.ErrAbortHandler) }()
		} else if f.cut == 0 {
			panic(http.ErrAbortHandler)
		} else if f.cut > 0 {
			out.left = f.cut
		}
	}
	switch {
	case r.URL.Path == "/sdk/vimService.wsdl":
		out.Header().Set("Content-Type", "text/xml")
		_, _ = io.WriteString(out, wsdl())
	case strings.HasPrefix(r.URL.Path, "/folder/") && !*bare:
		l.data(out, r)
	default:
		l.next.ServeHTTP(out, r)
		if strings.HasSuffix(kind, " RefreshDatastore") {
			l.restore()
		}
	}
}

// restore has datastores say what they are asked to, where the simulator has just looked at the disk.
func (l *lab) restore() {
	l.Lock()
	defer l.Unlock()
	for name, free := range l.free {
		ds := datastore(name)
		simulator.Map.WithLock(ds, func() { ds.Summary.FreeSpace = free })
	}
}

// soapFault is the answer of a vCenter that refuses a call; NoPermission names a privilege.
const soapFault = `<soapenv:Envelope xmlns:soapenv="http://schemas.xmlsoap.org/soap/envelope/"><soapenv:Body>` +
	`<soapenv:Fault><faultcode>ServerFaultCode</faultcode><faultstring>no</faultstring><detail>` +
	`<Fault xmlns="urn:vim25" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" xsi:type="%s">` +
	`<privilegeId>Datastore.FileManagement</privilegeId></Fault></detail></soapenv:Fault></soapenv:Body>` +
	`</soapenv:Envelope>`

// A short body fails after some bytes, as that of a client that went away.
type short struct {
	io.ReadCloser
	left int64
}

func (s *short) Read(p []byte) (int, error) {
	if s.left == 0 {
		return 0, io.ErrUnexpectedEOF
	}
	if int64(len(p)) > s.left {
		p = p[:s.left]
	}
	n, err := s.ReadCloser.Read(p)
	s.left -= int64(n)
	return n, err
}

// data is /folder as the documentation has it: credentials, 201 for a new file, DELETE, no other methods.
func (l *lab) data(w *noted, r *http.Request) {
	if !l.known(r) {
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	file := l.file(r)
	_, missing := os.Stat(file)
	switch r.Method {
	case http.MethodGet, http.MethodHead:
	case http.MethodPut:
		w.created = missing != nil
		w.Header().Set("Content-Length", "0")
	case http.MethodDelete:
		if file == "" || missing != nil {
			w.WriteHeader(http.StatusNotFound)
		} else if os.Remove(file) != nil {
			w.WriteHeader(http.StatusInternalServerError)
		} else {
			w.WriteHeader(http.StatusNoContent)
		}
		return
	default:
		w.WriteHeader(http.StatusMethodNotAllowed)
		return
	}
	l.next.ServeHTTP(w, r)
	if r.Method == http.MethodPut && w.status == 0 {
		w.WriteHeader(http.StatusOK)
	}
}

func (l *lab) file(r *http.Request) string {
	if ds := datastore(r.URL.Query().Get("dsName")); ds != nil {
		return filepath.Join(ds.Info.GetDatastoreInfo().Url, strings.TrimPrefix(r.URL.Path, "/folder/"))
	}
	return ""
}

func (l *lab) known(r *http.Request) bool {
	if name, pass, ok := r.BasicAuth(); ok {
		return name == *user && pass == *password
	}
	cookie, err := r.Cookie("vmware_soap_session")
	if err != nil {
		return false
	}
	ctx := &simulator.Context{Context: context.Background(), Map: simulator.Map}
	body := simulator.Map.SessionManager().SessionIsActive(ctx, &types.SessionIsActive{
		SessionID: strings.Trim(cookie.Value, `"`), UserName: *user})
	return body.(*methods.SessionIsActiveBody).Res.Returnval
}

func datastore(name string) *simulator.Datastore {
	for _, ref := range simulator.Map.All("Datastore") {
		if ds, ok := simulator.Map.Get(ref.Reference()).(*simulator.Datastore); ok && ds.Name == name {
			return ds
		}
	}
	return nil
}

// control brings trouble about.
func (l *lab) control(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	number := func(name string, otherwise int64) int64 {
		if value, err := strconv.ParseInt(q.Get(name), 10, 64); err == nil {
			return value
		}
		return otherwise
	}
	switch strings.TrimPrefix(r.URL.Path, "/lab/") {
	case "fault":
		l.Lock()
		l.faults = append(l.faults, &fault{method: q.Get("method"), path: q.Get("path"),
			operation: q.Get("operation"), lose: q.Get("lose") != "",
			soap: q.Get("soap"), interim: int(number("interim", 0)), location: q.Get("location"), status: int(number("status", 0)), times: int(number("times", 1)),
			cut: number("cut", -1), delay: time.Duration(number("delay_ms", 0)) * time.Millisecond})
		l.Unlock()
	case "fail":
		l.Lock()
		l.failure = failure{number: int(number("number", 1)), status: int(number("status", 503)),
			times: int(number("times", 1))}
		l.Unlock()
	case "count":
		l.Lock()
		fmt.Fprint(w, l.count)
		l.Unlock()
	case "clear":
		l.Lock()
		l.faults, l.count, l.failure = nil, 0, failure{}
		l.Unlock()
	case "expire":
		l.expire()
	case "datastore":
		ds := datastore(q.Get("name"))
		if ds == nil {
			http.NotFound(w, r)
			return
		}
		if q.Get("free") != "" {
			l.Lock()
			l.free[ds.Name] = number("free", 0)
			l.Unlock()
		}
		simulator.Map.WithLock(ds, func() {
			ds.Summary.FreeSpace = number("shown", number("free", ds.Summary.FreeSpace))
			ds.Summary.Capacity = number("capacity", ds.Summary.Capacity)
			if value := q.Get("maintenance"); value != "" {
				ds.Summary.MaintenanceMode = value
			}
			if value := q.Get("accessible"); value != "" {
				ds.Summary.Accessible = value == "true"
				for i := range ds.Host {
					ds.Host[i].MountInfo.Accessible = types.NewBool(value == "true")
				}
			}
		})
	default:
		http.NotFound(w, r)
	}
}

func (l *lab) expire() {
	ctx := context.Background()
	client, err := vim25.NewClient(ctx, l.service)
	check(err)
	var manager mo.SessionManager
	ref := *client.ServiceContent.SessionManager
	check(mo.RetrieveProperties(ctx, client, client.ServiceContent.PropertyCollector, ref, &manager))
	var ids []string
	for _, s := range manager.SessionList {
		ids = append(ids, s.Key)
	}
	_, err = methods.TerminateSession(ctx, client, &types.TerminateSession{This: ref, SessionId: ids})
	check(err)
}

func main() {
	flag.Parse()
	ctx := context.Background()
	simulator.SessionIdleTimeout = *idle
	model := simulator.VPX()
	model.Folder, model.Datastore, model.Machine, model.Autostart = *folder, 0, 0, false
	check(model.Create())
	client, err := vim25.NewClient(ctx, model.Service)
	check(err)
	hosts, err := find.NewFinder(client, false).HostSystemList(ctx, "/...")
	check(err)
	for _, name := range strings.Split(*stores, ",") {
		dir := filepath.Join(*state, "datastores", name)
		check(os.MkdirAll(dir, 0o700))
		for _, host := range hosts {
			system, err := host.ConfigManager().DatastoreSystem(ctx)
			check(err)
			_, err = system.CreateLocalDatastore(ctx, name, dir)
			check(err)
		}
	}
	cert, err := tls.LoadX509KeyPair(filepath.Join(*state, "cert.pem"), filepath.Join(*state, "key.pem"))
	check(err)
	model.Service.TLS = &tls.Config{Certificates: []tls.Certificate{cert}}
	model.Service.Listen = &url.URL{Host: *listen, User: url.UserPassword(*user, *password)}
	// No request comes in before the URL is written.
	server := model.Service.NewServer()
	server.Config.Handler = &lab{service: model.Service, next: server.Config.Handler,
		free: map[string]int64{}}
	check(os.WriteFile(filepath.Join(*state, "url"), []byte("https://"+server.URL.Host+"\n"), 0o600))
	select {}
}
