import { Component, type ComponentChildren, createElement, type FunctionComponent } from "preact";

/** The component renders again only when a prop is another value than before. */
export function memo<P extends object>(render: (props: P) => ComponentChildren): FunctionComponent<P> {
  class Memo extends Component<P> {
    override shouldComponentUpdate(next: Readonly<P>): boolean {
      return (Object.keys(next) as (keyof P)[]).some((name) => next[name] !== this.props[name]);
    }
    override render(): ComponentChildren {
      return render(this.props);
    }
  }
  return (props) => createElement(Memo, props);
}
