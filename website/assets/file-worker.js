/* Search runs in a worker, and browsers start none for pages that are opened from disk.
   There, a hidden frame takes its place: the same script, with messages between windows. */
if (location.protocol === "file:") {
  window.Worker = class {
    constructor(url) {
      this.frame = document.createElement("iframe");
      this.frame.hidden = true;
      document.body.append(this.frame);
      const inner = this.frame.contentWindow;
      inner.postMessage = (data) => this.onmessage?.({ data });
      this.ready = new Promise((resolve) => {
        const script = inner.document.createElement("script");
        script.src = url;
        script.onload = resolve;
        script.onerror = (event) => this.onerror?.(event);
        inner.document.body.append(script);
      });
    }

    postMessage(data) {
      this.ready.then(() => this.frame.contentWindow.onmessage?.({ data }));
    }

    terminate() {
      this.frame.remove();
    }
  };
}
